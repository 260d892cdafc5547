//! What the machine says of itself: processors, load, and the time that processes used.

use anyhow::{Context, ensure};
use std::{collections::BTreeMap, fs, thread, time::Duration};

/// Clock ticks a second that the system counts processor time in; 100 on every Linux in use.
const TICKS_A_SECOND: f64 = 100.0;
/// Most that others may use of one processor before a run.
const OTHERS_MAX: f64 = 0.2;
/// How long to look at them.
const LOOK: Duration = Duration::from_secs(2);

/// Processor and how many of it.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{count} x {model}")
}

/// Fails when something else uses the processors: its noise would be in every figure.
pub(crate) fn assert_quiet() -> anyhow::Result<()> {
    let before = busy_seconds()?;
    // Not a condition: the length of the look.
    thread::sleep(LOOK);
    let share = (busy_seconds()? - before) / LOOK.as_secs_f64();
    ensure!(
        share <= OTHERS_MAX,
        "others use {share:.2} processors; end them, or give --busy and read the figures with care"
    );
    Ok(())
}

/// Seconds that all processors were not idle since the machine started.
fn busy_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    ensure!(ticks.len() > 7, "/proc/stat is not understood");
    // user, nice, system, irq, softirq, steal; not idle and iowait.
    Ok([0, 1, 2, 5, 6, 7].iter().map(|at| ticks[*at]).sum::<f64>() / TICKS_A_SECOND)
}

/// Processor time of a process and everything below it, the ended included, in microseconds.
pub(crate) fn used_micros(root: u32) -> anyhow::Result<f64> {
    let mut ticks = 0.0;
    for pid in tree(root)? {
        // A process may end between the list and the look; its parent has counted it then.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let fields = after_name(&stat);
        let of = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        // utime, stime, and those of children that were waited for.
        ticks += of(11) + of(12) + of(13) + of(14);
    }
    Ok(ticks / TICKS_A_SECOND * 1e6)
}

/// A process and all below it.
pub(crate) fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some(parent) = after_name(&stat).get(1).and_then(|n| n.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.get(pid).into_iter().flatten());
        at += 1;
    }
    Ok(found)
}

/// The fields of a stat line from the state on: the name before may hold blanks.
fn after_name(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or(stat, |(_, rest)| rest).split_whitespace().collect()
}
