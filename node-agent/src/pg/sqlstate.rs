//! SQLSTATEs that the front end itself answers with, by PostgreSQL's names. Those of statements come
//! from the SQL crate.

/// protocol_violation
pub(super) const PROTOCOL_VIOLATION: &str = "08P01";
/// feature_not_supported
pub(super) const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// invalid_parameter_value
pub(super) const INVALID_PARAMETER: &str = "22023";
/// invalid_binary_representation
pub(super) const INVALID_BINARY: &str = "22P03";
/// invalid_text_representation
pub(super) const INVALID_TEXT: &str = "22P02";
/// character_not_in_repertoire
pub(super) const BAD_ENCODING: &str = "22021";
/// active_sql_transaction
pub(super) const ACTIVE_TRANSACTION: &str = "25001";
/// read_only_sql_transaction
pub(super) const READ_ONLY: &str = "25006";
/// no_active_sql_transaction
pub(super) const NO_TRANSACTION: &str = "25P01";
/// in_failed_sql_transaction
pub(super) const FAILED_TRANSACTION: &str = "25P02";
/// idle_in_transaction_session_timeout
pub(super) const IDLE_IN_TRANSACTION: &str = "25P03";
/// invalid_sql_statement_name
pub(super) const UNKNOWN_STATEMENT: &str = "26000";
/// invalid_authorization_specification
pub(super) const INVALID_AUTHORIZATION: &str = "28000";
/// invalid_password
pub(super) const INVALID_PASSWORD: &str = "28P01";
/// invalid_cursor_name
pub(super) const UNKNOWN_CURSOR: &str = "34000";
/// invalid_savepoint_specification
pub(super) const UNKNOWN_SAVEPOINT: &str = "3B001";
/// serialization_failure
pub(super) const SERIALIZATION: &str = "40001";
/// statement_completion_unknown
pub(super) const OUTCOME_UNKNOWN: &str = "40003";
/// deadlock_detected
pub(super) const DEADLOCK: &str = "40P01";
/// insufficient_privilege
pub(super) const PRIVILEGE: &str = "42501";
/// undefined_object
pub(super) const UNKNOWN_OBJECT: &str = "42704";
/// undefined_function
pub(super) const UNKNOWN_FUNCTION: &str = "42883";
/// duplicate_cursor
pub(super) const DUPLICATE_CURSOR: &str = "42P03";
/// duplicate_prepared_statement
pub(super) const DUPLICATE_STATEMENT: &str = "42P05";
/// disk_full
pub(super) const DISK_FULL: &str = "53100";
/// too_many_connections
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
/// program_limit_exceeded
pub(super) const LIMIT_EXCEEDED: &str = "54000";
/// object_not_in_prerequisite_state
pub(super) const NOT_IN_STATE: &str = "55000";
/// lock_not_available
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// query_canceled
pub(super) const CANCELED: &str = "57014";
/// admin_shutdown
pub(super) const ADMIN_SHUTDOWN: &str = "57P01";
/// cannot_connect_now
pub(super) const CANNOT_CONNECT_NOW: &str = "57P03";
/// idle_session_timeout
pub(super) const IDLE_SESSION: &str = "57P05";
/// successful_completion
pub(super) const SUCCESS: &str = "00000";
/// internal_error
pub(super) const INTERNAL: &str = "XX000";
