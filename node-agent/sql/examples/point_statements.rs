//! What a prepared point SELECT and a prepared point UPDATE with its commit cost, without wire and log.
//!
//! `cargo run -p understudy-sql --example point_statements -- 100000`

use std::{error::Error, time::Instant};
use understudy_sql::{
    CommandTag, ExecContext, Prepared, RowSink, SessionInfo, SqlError, execute, execute_into,
    parse, prepare,
};
use understudy_store::{Isolation, MemoryLimits, Store, Txn, Value};
use understudy_types::Lsn;

/// Counts rows and keeps none.
struct Count(u64);

impl RowSink for Count {
    fn row(&mut self, values: &[Value], _: Lsn) -> Result<(), SqlError> {
        self.0 += values.len() as u64;
        Ok(())
    }

    fn notice(&mut self, _: String) {}
}

struct Bench {
    store: Store,
    session: SessionInfo,
    lsn: Lsn,
}

impl Bench {
    fn context<'a>(&'a self, params: &'a [Value]) -> ExecContext<'a> {
        ExecContext {
            store: &self.store,
            params,
            transaction_micros: 0,
            statement_micros: 0,
            seed: 1,
            session: &self.session,
            is_apart: true,
        }
    }

    fn prepare(&self, sql: &str) -> Result<Prepared, Box<dyn Error>> {
        let statements = parse(sql)?;
        Ok(prepare(&self.store.catalog(), &statements[0], &[])?)
    }

    fn commit(&mut self, txn: Txn) {
        self.lsn = self.lsn.next();
        self.store.commit(txn, self.lsn);
        self.store.set_visible(self.lsn);
    }

    fn run(&mut self, sql: &str) -> Result<(), Box<dyn Error>> {
        let mut txn = self.store.begin(Isolation::ReadCommitted);
        execute(&self.prepare(sql)?, &self.context(&[]), &mut txn)?;
        self.commit(txn);
        Ok(())
    }

    fn once(
        &mut self,
        prepared: &Prepared,
        params: &[Value],
    ) -> Result<CommandTag, Box<dyn Error>> {
        let mut txn = self.store.begin(Isolation::ReadCommitted);
        let mut count = Count(0);
        let tag = execute_into(prepared, &self.context(params), &mut txn, &mut count)?;
        if txn.is_read_only() {
            self.store.commit(txn, Lsn::ZERO);
        } else {
            std::hint::black_box(self.store.redo(&txn));
            self.commit(txn);
        }
        Ok(tag)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let rows: i64 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let limits = MemoryLimits { permanent_bytes: 4 << 30, temporary_bytes: 1 << 30 };
    let mut bench =
        Bench { store: Store::new(limits), session: SessionInfo::default(), lsn: Lsn(1) };
    bench.run(
        "create table account (id int primary key, branch int, balance int, filler char(84))",
    )?;
    bench.run(&format!(
        "insert into account select g, 1, 0, '' from generate_series(1, {rows}) g"
    ))?;
    let select = bench.prepare("select balance from account where id = $1")?;
    let update = bench.prepare("update account set balance = balance + $1 where id = $2")?;
    for (name, prepared) in [("select", &select), ("update", &update)] {
        let start = Instant::now();
        let mut key = 1_i64;
        for _ in 0..rows {
            key = key * 7_919 % rows + 1;
            let params = [Value::Int(key), Value::Int(key)];
            let count = prepared.params.len();
            bench.once(prepared, &params[..count])?;
        }
        println!("{name}: {} ns", start.elapsed().as_nanos() as i64 / rows);
    }
    Ok(())
}
