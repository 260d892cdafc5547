//! The log as its callers use it: on a real directory, in memory, and on failing disks.

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod support;
