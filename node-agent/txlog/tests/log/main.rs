//! The log as its callers use it: on a real directory, in memory, and on failing disks.

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod support;
#[cfg(test)]
mod threads;
