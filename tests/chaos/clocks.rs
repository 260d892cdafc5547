//! Clocks that a process reads wrong: they jump, or run slow. All members of the local cluster share the
//! machine's clocks, so that the fault is put where a process reads them: over `clock_gettime` of its own
//! copy of the vDSO, as Chaos Mesh's TimeChaos does. The new code asks the kernel and changes the answer.
//!
//! ```text
//!   vDSO of the process, copied on the first write
//!   ┌───────────────┬── clock_gettime ──┬─────────┬── tail, zeros ──┐
//!   │               │ jmp ──────────────┼─────────┼─▶ other code    │
//!   └───────────────┴───────────────────┴─────────┴─────────────────┘
//! ```
//!
//! Written while every thread of the process is stopped and none stands on the bytes that change.

use super::arena::Scene;
use crate::shell::wait_for;
use anyhow::{Context, ensure};
use object::{Object, ObjectSymbol};
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// jmp rel32, which leads to the other code.
const JUMP: u8 = 0xe9;
/// The same with its distance.
const JUMP_BYTES: usize = 5;
/// Bytes at the vDSO's end for the other code.
const TAIL_BYTES: u64 = 256;
/// How often it is looked whether all threads stand still, and tried to find none on the bytes that change.
const TRIES: u32 = 500;
/// Time between two of those.
const STEP: Duration = Duration::from_millis(1);
const HOUR: i32 = 3_600;
/// So many milliseconds pass on the slow clock in a real second: within the 10 % that authority allows for.
const SLOW: i32 = 920;
/// Longest time until a slow clock is seen to be behind: a question takes under a second.
const BEHIND: Duration = Duration::from_secs(15);
/// How long a wrong clock stands, in seconds.
const WRONG: (u64, u64) = (4, 8);

/// What a process reads instead of the time.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// The wall clock, so many seconds off.
    Shifted(i32),
    /// Every clock, slow from now on.
    Slow,
}

/// A process that reads the time wrong, until this is dropped.
struct Turned {
    pid: Pid,
    entry: u64,
    before: [u8; JUMP_BYTES],
}

impl Drop for Turned {
    fn drop(&mut self) {
        // It may have ended meanwhile, and its successor reads the true time.
        let _ = while_stopped(self.pid, self.entry, |memory| {
            Ok(memory.write_all_at(&self.before, self.entry)?)
        });
    }
}

pub(crate) fn jump_forward(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (member, turned) = jump(scene, HOUR)?;
    ensure!(ahead(scene, &member)? > f64::from(HOUR) / 2.0, "{member} reads the true time");
    scene.hold(WRONG.0, WRONG.1);
    drop(turned);
    Ok(())
}

pub(crate) fn jump_back(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (member, turned) = jump(scene, -HOUR)?;
    ensure!(ahead(scene, &member)? < -f64::from(HOUR) / 2.0, "{member} reads the true time");
    if member == scene.active {
        // The pair is young: the next link shows a certificate of what is the future here.
        scene.note("and the standby links again");
        scene.kill_engine(&scene.standby)?;
    }
    scene.hold(WRONG.0, WRONG.1);
    drop(turned);
    Ok(())
}

/// The wall clock of either member.
fn jump(scene: &mut Scene<'_>, seconds: i32) -> anyhow::Result<(String, Vec<Turned>)> {
    let (member, whose) = match scene.dice.below(2) {
        0 => (scene.active.clone(), "the active's"),
        _ => (scene.standby.clone(), "the standby's"),
    };
    scene.note(whose);
    let turned = turn(scene, &member, Reading::Shifted(seconds))?;
    Ok((member, turned))
}

/// How many seconds the member is ahead of this machine, at least: its answer comes after the question.
fn ahead(scene: &Scene<'_>, member: &str) -> anyhow::Result<f64> {
    let asked = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let told = scene.pair.psql(member, "SELECT extract(epoch FROM clock_timestamp())")?;
    Ok(told.trim().parse::<f64>()? - asked)
}

/// An active whose clock is slow believes in its authority for longer than it has it by anybody else's.
pub(crate) fn slow_then_cut(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let active = scene.active.clone();
    let turned = turn(scene, &active, Reading::Slow)?;
    // A clock that is not slow is never behind; this one is by more than the question takes, soon.
    wait_for("the slow clock is behind", BEHIND, || {
        Ok((ahead(scene, &active)? < 0.0).then_some(()))
    })?;
    let cut = super::network::cut_active(scene);
    drop(turned);
    cut
}

/// Every process of the member's container; an engine that starts later reads the true time.
fn turn(scene: &Scene<'_>, member: &str, reading: Reading) -> anyhow::Result<Vec<Turned>> {
    let (node, container) = (scene.node(member)?, scene.container(member)?);
    let pids = scene.shell.processes(&node, &container)?;
    pids.into_iter().map(|pid| replace(pid, reading)).collect()
}

fn replace(pid: u32, reading: Reading) -> anyhow::Result<Turned> {
    ensure!(cfg!(target_arch = "x86_64"), "the code that is written is x86-64's");
    let (start, end) = vdso_of(pid)?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    let (entry, tail) = (start + clock_gettime_in(pid, (start, end))?, end - TAIL_BYTES);
    let code = code(reading);
    let mut before = [0; JUMP_BYTES];
    while_stopped(pid, entry, |memory| {
        let mut room = [0; TAIL_BYTES as usize];
        memory.read_exact_at(&mut room, tail)?;
        memory.read_exact_at(&mut before, entry)?;
        ensure!(before[0] != JUMP, "its clock is turned already");
        memory.write_all_at(&code, tail)?;
        let distance =
            i32::try_from(tail.cast_signed() - (entry + JUMP_BYTES as u64).cast_signed())?;
        let mut jump = [JUMP; JUMP_BYTES];
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        Ok(memory.write_all_at(&jump, entry)?)
    })?;
    Ok(Turned { pid, entry, before })
}

/// Where the kernel put it.
fn vdso_of(pid: u32) -> anyhow::Result<(u64, u64)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).context("no vDSO")?;
    let (start, end) = line
        .split_whitespace()
        .next()
        .and_then(|range| range.split_once('-'))
        .context("a map has no range")?;
    Ok((u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?))
}

/// Where the function begins in the vDSO, which is an ELF file in memory.
fn clock_gettime_in(pid: Pid, (start, end): (u64, u64)) -> anyhow::Result<u64> {
    let mut image = vec![0; usize::try_from(end - start)?];
    memory_of(pid)?.read_exact_at(&mut image, start)?;
    let file = object::File::parse(&*image)?;
    let found = file.dynamic_symbols().find(|s| s.name() == Ok("__vdso_clock_gettime"));
    Ok(found.context("the vDSO has no clock_gettime")?.address())
}

fn memory_of(pid: Pid) -> anyhow::Result<File> {
    let path = format!("/proc/{}/mem", pid.as_raw_nonzero());
    File::options().read(true).write(true).open(&path).with_context(|| path)
}

/// Runs `change` while every thread stands still, none of them behind the first byte that changes.
fn while_stopped(
    pid: Pid,
    entry: u64,
    mut change: impl FnMut(&File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let memory = memory_of(pid)?;
    for _ in 0..TRIES {
        kill_process(pid, Signal::STOP)?;
        let done = all_stand(pid).map(|places| {
            let is_clear = |at: &u64| !(entry + 1..entry + JUMP_BYTES as u64).contains(at);
            places.iter().all(is_clear).then(|| change(&memory))
        });
        kill_process(pid, Signal::CONT)?;
        if let Some(done) = done? {
            return done;
        }
        thread::sleep(STEP);
    }
    anyhow::bail!("a thread of process {} always stands on its clock", pid.as_raw_nonzero())
}

/// Where each thread stands, once all of them are stopped.
fn all_stand(pid: Pid) -> anyhow::Result<Vec<u64>> {
    for _ in 0..TRIES {
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))?;
        let places = tasks.map(|task| place_of(&task?.path())).collect::<anyhow::Result<_>>()?;
        if let Some(places) = places {
            return Ok(places);
        }
        thread::sleep(STEP);
    }
    anyhow::bail!("process {} does not stop", pid.as_raw_nonzero())
}

/// Where a thread stands; `None` while it runs, for then the kernel does not tell.
fn place_of(task: &Path) -> anyhow::Result<Option<u64>> {
    let told = fs::read_to_string(task.join("syscall"))?;
    let place = told.split_whitespace().last().and_then(|word| word.strip_prefix("0x"));
    Ok(place.map(|hex| u64::from_str_radix(hex, 16)).transpose()?)
}

/// x86-64 for `clock_gettime(edi, rsi)`: the system call, and its answer changed.
fn code(reading: Reading) -> Vec<u8> {
    // mov eax, 228; syscall; test eax, eax
    let mut code = vec![0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0];
    match reading {
        Reading::Shifted(seconds) => {
            // jne ret; test edi, edi (CLOCK_REALTIME); jne ret; add qword [rsi], seconds
            code.extend([0x75, 0x0b, 0x85, 0xff, 0x75, 0x07, 0x48, 0x81, 0x06]);
            code.extend(seconds.to_le_bytes());
        }
        Reading::Slow => code.extend(slow()),
    }
    code.push(0xc3);
    code
}

/// `since + (t - since) * SLOW / 1000`, each clock since now; what follows the test of the system call.
fn slow() -> Vec<u8> {
    let since = |clock| {
        let now = clock_gettime(clock);
        (now.tv_sec * 1_000_000_000 + now.tv_nsec).to_le_bytes()
    };
    let mut code = Vec::with_capacity(TAIL_BYTES as usize);
    code.extend([0x75, 0x67]); // jne ret
    code.extend([0x85, 0xff, 0x74, 0x22]); // CLOCK_REALTIME: je real
    code.extend([0x83, 0xff, 0x01, 0x74, 0x11]); // CLOCK_MONOTONIC: je mono
    code.extend([0x83, 0xff, 0x07, 0x75, 0x59]); // not CLOCK_BOOTTIME: jne ret
    for (clock, jump) in [
        (ClockId::Boottime, &[0xeb, 0x16][..]),
        (ClockId::Monotonic, &[0xeb, 0x0a]),
        (ClockId::Realtime, &[]),
    ] {
        code.extend([0x49, 0xb8]); // mov r8, since
        code.extend(since(clock));
        code.extend(jump); // jmp go
    }
    // go:
    code.extend([0x48, 0x69, 0x06, 0x00, 0xca, 0x9a, 0x3b]); // imul rax, [rsi], 1000000000
    code.extend([0x48, 0x03, 0x46, 0x08]); // add rax, [rsi+8]
    code.extend([0x4c, 0x29, 0xc0]); // sub rax, r8
    code.extend([0x48, 0x69, 0xc0]); // imul rax, rax, SLOW
    code.extend(SLOW.to_le_bytes());
    code.extend([0x41, 0xb9, 0xe8, 0x03, 0, 0]); // mov r9d, 1000
    code.extend([0x48, 0x99, 0x49, 0xf7, 0xf9]); // cqo; idiv r9
    code.extend([0x4c, 0x01, 0xc0]); // add rax, r8
    code.extend([0x41, 0xb9, 0x00, 0xca, 0x9a, 0x3b]); // mov r9d, 1000000000
    code.extend([0x48, 0x99, 0x49, 0xf7, 0xf9]); // cqo; idiv r9
    code.extend([0x48, 0x89, 0x06, 0x48, 0x89, 0x56, 0x08]); // [rsi] = rax, [rsi+8] = rdx
    code.extend([0x31, 0xc0]); // xor eax, eax
    code
}
