//! The `understudy` command line: its sub-commands as a library, so that tests call them too.
