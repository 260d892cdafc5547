//! The `understudy` binary: one multi-call program for the agent, the engine and the person. Called as
//! `kubectl-understudy` it is a kubectl plugin.

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = understudy_cli::Arguments::parse();
    match understudy_cli::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("understudy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    /// How far apart most of many blocks of so many words lie, in bytes.
    fn distance<const WORDS: usize>() -> usize {
        let blocks: Vec<_> = (0..10_000).map(|_| Box::new([0_u64; WORDS])).collect();
        let mut places: Vec<_> =
            blocks.iter().map(|block| ptr::from_ref(&**block).addr()).collect();
        places.sort_unstable();
        let mut distances: Vec<_> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        distances.sort_unstable();
        distances[distances.len() / 2]
    }

    #[test]
    fn a_block_takes_what_the_store_accounts_for_it() {
        let taken =
            [distance::<4>(), distance::<5>(), distance::<6>(), distance::<10>(), distance::<12>()];
        assert_eq!(taken, [32, 48, 48, 80, 96], "the last is a row's cell");
    }
}
