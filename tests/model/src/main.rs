//! Runs rows of the model by name, and prints what they found.

use clap::Parser;
use std::process::ExitCode;
use understudy_model::{
    rows::{self, Row, When},
    run::run,
};

#[derive(Debug, Parser)]
struct Arguments {
    /// Only this row; without it, the rows of the tests
    #[arg(long)]
    row: Option<String>,
    /// Names and bounds of all rows
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let chosen: Vec<Row> = rows::all()
        .into_iter()
        .filter(|row| match &arguments.row {
            Some(name) => row.name == name,
            None => arguments.list || row.when == When::Always,
        })
        .collect();
    if chosen.is_empty() {
        eprintln!("there is no such row; --list names them");
        return Ok(ExitCode::FAILURE);
    }
    let mut failed = 0;
    for row in &chosen {
        print_head(row);
        if !arguments.list {
            failed += usize::from(!holds(row)?);
        }
    }
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_head(row: &Row) {
    let tested = if row.when == When::Always { "tested" } else { "" };
    println!("{:32} {:12} {tested:6}  {}", row.name, row.subject.bounds(), row.what);
}

fn holds(row: &Row) -> anyhow::Result<bool> {
    let outcome = run(row)?;
    for rule in &row.without {
        let (number, without) = rule.without();
        println!("      without {number}: {without}");
    }
    println!("      {outcome}");
    for line in &outcome.story {
        println!("    {line}");
    }
    match &outcome.objection {
        None => println!("      ok"),
        Some(objection) => println!("      FAIL: {objection}"),
    }
    Ok(outcome.objection.is_none())
}
