//! Condition types and reasons of an ActiveStandbyPair, in one place. Types are the contract; reasons
//! are CamelCase words that a person can search for.

/// Commits are acknowledged under the promise of the spec.
pub const AVAILABLE: &str = "Available";
/// An in-sync standby follows.
pub const REDUNDANT: &str = "Redundant";
/// Available, redundant, and the newest spec is in force.
pub const READY: &str = "Ready";
/// The operator is changing something, or waits for something to change (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Nothing will change without a person or a fault's end (kstatus).
pub const STALLED: &str = "Stalled";
/// Who may acknowledge is decided by all three voters.
pub const FENCING_HEALTHY: &str = "FencingHealthy";
/// Every volume is bound and writable.
pub const STORAGE_HEALTHY: &str = "StorageHealthy";
/// Every member has room in permanent memory.
pub const MEMORY_HEALTHY: &str = "MemoryHealthy";
/// Every certificate is valid for long enough.
pub const CERTIFICATES_VALID: &str = "CertificatesValid";
/// The spec is legal and has a consequence that its author should know.
pub const CONFIGURATION_WARNING: &str = "ConfigurationWarning";

/// Every condition type, in the order in which they stand in status.
pub const TYPES: [&str; 10] = [
    AVAILABLE,
    REDUNDANT,
    READY,
    RECONCILING,
    STALLED,
    FENCING_HEALTHY,
    STORAGE_HEALTHY,
    MEMORY_HEALTHY,
    CERTIFICATES_VALID,
    CONFIGURATION_WARNING,
];
