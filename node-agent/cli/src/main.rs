//! The `understudy` binary: one multi-call program for the agent, the engine and the person.

fn main() {}
