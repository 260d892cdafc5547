//! Trial on a real API server.
use futures::StreamExt;
use kube::Api;
use std::collections::BTreeMap;
use understudy_authority::*;
use understudy_lease::*;
use understudy_types::*;
use uuid::Uuid;
#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = kube::Config::infer().await.unwrap();
    let ns = "lease-a";
    let lease = AuthorityLease::connect(config.clone(), ns, "orders-authority", Timeouts::default()).unwrap();
    println!("read absent: {:?}", lease.read().await.err());
    let made = match lease.create(&LeaseRecord::uninitialised(4000), BTreeMap::from([("understudy.dev/pair".into(), "orders".into())])).await { CreateOutcome::Created(v) => v, o => panic!("{o:?}") };
    println!("again: {:?}", lease.create(&LeaseRecord::uninitialised(4000), BTreeMap::new()).await);
    let l2 = lease.clone();
    let watcher = tokio::spawn(async move {
        let mut hints = Box::pin(l2.watch());
        let mut n = 0;
        while let Some(h) = hints.next().await {
            match h { Ok(v) => { n += 1; println!("  hint seq {} at {} holder {:?}", v.record.seq, v.seen.0/1000, v.asked_holder); } Err(e) => { println!("  hint {e}"); break } }
        }
        n
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let h = Holder { member: MemberName::new("orders-1").unwrap(), store: StoreId(Uuid::from_u128(1)), incarnation: Incarnation { start: 1, id: Uuid::from_u128(2) } };
    let mut base = made.clone();
    let mut rec = LeaseRecord { dbid: Some(Dbid(Uuid::from_u128(3))), epoch: Epoch(1), state: LeaseState::Held, holder: Some(h), ..base.record.successor() };
    let mut times = vec![];
    for _ in 0..50 {
        let t = std::time::Instant::now();
        base = match lease.write(&base.version, &rec).await { WriteOutcome::Confirmed(v) => v, o => panic!("{o:?}") };
        times.push(t.elapsed());
        rec = base.record.successor();
    }
    times.sort();
    println!("write p50 {:?} max {:?}", times[25], times[49]);
    println!("stale: {:?}", lease.write(&made.version, &LeaseRecord { ..made.record.successor() }).await);
    let rel = LeaseRecord { state: LeaseState::Released, ..base.record.successor() };
    base = match lease.write(&base.version, &rel).await { WriteOutcome::Confirmed(v) => v, o => panic!("{o:?}") };
    println!("released; remove stale {:?}", lease.remove(&made.version).await.is_err());
    let r = lease.read().await.unwrap();
    assert_eq!(r.version, base.version);
    println!("remove: {:?}", lease.remove(&r.version).await);
    println!("hints {}", watcher.await.unwrap());
    println!("gone: {:?}", lease.write(&base.version, &base.record.successor()).await);
    let client = kube::Client::try_from(prompt_config(config, Timeouts::default())).unwrap();
    let stand = |id: &str| { let (tx, rx) = tokio::sync::oneshot::channel::<()>(); let (l, run) = election::stand(Api::namespaced(client.clone(), ns), election::Settings { lease: "op".into(), identity: id.into(), duration: Span::seconds(2), timeouts: Timeouts::default() }, async move { rx.await.ok(); }); (l, tokio::spawn(run), tx) };
    let (mut a, ta, sa) = stand("a");
    a.won().await;
    let (mut b, tb, sb) = stand("b");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    println!("a {} b {}", a.holds(), b.holds());
    let t = std::time::Instant::now();
    drop(sa); ta.await.unwrap();
    b.won().await;
    println!("b won after {:?}", t.elapsed());
    drop(sb); tb.await.unwrap();
    println!("b holds {}", b.holds());
}
