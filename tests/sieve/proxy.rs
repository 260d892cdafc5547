//! The proxy: a process of its own in the network of the cluster, between an operator that it starts and
//! the API server. It ends with its standard input, and the operator with it.
//!
//! **Invariants**
//! 1. A write is counted when the API server has answered it, whether or not the operator lives to hear.
//! 2. Where the operator dies after a write, it dies before it hears the answer. A write that says the
//!    same as one that has killed it in this stage lets it live: each write once.
//! 3. The operator's own election is neither counted nor disturbed.

use super::{
    operator::{ELECTION, Program, SPARES, Supervisor, life_of},
    upstream::{Answer, Upstream},
    words::{Order, Report, Written},
};
use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    env, fs,
    io::Write as _,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc};
use understudy_tests::sieve::{
    call::{Call, Write},
    case::Case,
    sift::{Passed, Sift},
};

/// The operator's token, which is no argument.
pub(crate) const TOKEN: &str = "UNDERSTUDY_SIEVE_TOKEN";
/// Lines of a watch on their way to the operator.
const LINES_QUEUED: usize = 256;

/// How the test starts it.
#[derive(Debug, Args)]
pub(crate) struct ProxyArguments {
    /// The API server
    #[arg(long)]
    upstream: String,
    /// A file with the authority of its certificate
    #[arg(long)]
    authority: PathBuf,
    /// The operator's program
    #[arg(long)]
    operator: PathBuf,
    /// A directory for the operator's files
    #[arg(long)]
    scratch: PathBuf,
    /// What is done to the operator
    #[arg(long)]
    case: Case,
    /// Picks the events that are lost
    #[arg(long)]
    seed: u64,
}

/// Runs until the standard input ends.
pub(crate) fn main(arguments: &ProxyArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sieve: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &ProxyArguments) -> anyhow::Result<()> {
    // Its end ends the operator too.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let proxy = runtime.block_on(start(arguments))?;
    for line in std::io::stdin().lines() {
        runtime.block_on(proxy.obey(serde_json::from_str(&line?)?));
        println!("{}", serde_json::to_string(&proxy.report())?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn start(arguments: &ProxyArguments) -> anyhow::Result<Arc<Proxy>> {
    let upstream = Upstream::new(&arguments.upstream, &fs::read(&arguments.authority)?)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let dies_often = matches!(arguments.case, Case::EveryWrite);
    let program = Program {
        path: arguments.operator.clone(),
        scratch: arguments.scratch.clone(),
        address: format!("http://{}", listener.local_addr()?),
        token: env::var(TOKEN)?,
        spares: if dies_often { SPARES } else { 1 },
    };
    let proxy = Arc::new(Proxy {
        upstream,
        supervisor: Supervisor::start(program),
        case: arguments.case,
        seed: arguments.seed,
        known: Mutex::default(),
    });
    tokio::spawn(accept(Arc::clone(&proxy), listener));
    Ok(proxy)
}

async fn accept(proxy: Arc<Proxy>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let service = service_fn(|request| Arc::clone(&proxy).carry(request));
            let stream = TokioIo::new(stream);
            // An operator that dies breaks its connections, and one that gives up a request too.
            let _ = http1::Builder::new().serve_connection(stream, service).await;
        });
    }
}

/// See the module.
struct Proxy {
    upstream: Upstream,
    supervisor: Supervisor,
    case: Case,
    seed: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    stage: String,
    report: Report,
    /// The newest answer to each list.
    lists: HashMap<String, Answer>,
    /// Those that are kept.
    past: HashMap<String, Answer>,
    past_until: Option<Instant>,
    /// What has killed the operator: the stage and the words.
    fatal: HashSet<(String, String)>,
    /// The life that `lists_of_life` is of.
    listing: u64,
    watches: u64,
}

type AnyBody = BoxBody<Bytes, hyper::Error>;

impl Proxy {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Report {
        let known = self.known();
        Report {
            killed: self.supervisor.killed(),
            fell: self.supervisor.fell(),
            lists_of_life: match known.listing == self.supervisor.life() {
                true => known.report.lists_of_life,
                false => 0,
            },
            is_past: known.past_until.is_some_and(|until| Instant::now() < until),
            ..known.report.clone()
        }
    }

    async fn obey(&self, order: Order) {
        match order {
            Order::Report => {}
            Order::Stage(name) => self.known().stage = name,
            Order::Restart => {
                self.supervisor.kill(self.supervisor.life()).await;
            }
            Order::Remember => {
                let mut known = self.known();
                known.past = known.lists.clone();
            }
            Order::RestartInThePast(millis) => {
                self.known().past_until = Some(Instant::now() + Duration::from_millis(millis));
                self.supervisor.kill(self.supervisor.life()).await;
            }
        }
    }

    async fn carry(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<AnyBody>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.context("the operator's request broke off")?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let (life, path) = life_of(path).context("a request of no life")?;
        parts.uri = path.parse()?;
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let call = Call::of(parts.method.as_str(), path, query, &body);
        let is_election = path.contains(ELECTION)
            || matches!(&call, Call::Write(write) if write.name.starts_with(ELECTION));
        if !is_election && !self.supervisor.begins(life).await {
            bail!("this life does not begin");
        }
        let request = Request::from_parts(parts, Full::new(body.clone()));
        match call {
            Call::Write(write) if !is_election => {
                let words = write.likeness(&body);
                // The API server's answer is waited for even where the operator has died meanwhile.
                let writing =
                    tokio::spawn(async move { self.write(life, write, words, request).await });
                Ok(whole(writing.await??))
            }
            Call::Write(_) | Call::Look => Ok(whole(self.upstream.ask(request).await?)),
            Call::List(key) => Ok(whole(self.list(life, key, request).await?)),
            Call::Watch => self.watch(request).await,
        }
    }

    async fn write(
        &self,
        life: u64,
        write: Write,
        words: String,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let answer = self.upstream.ask(request).await?;
        let (number, is_new) = {
            let mut known = self.known();
            let (stage, code) = (known.stage.clone(), answer.status.as_u16());
            let is_new = known.fatal.insert((stage.clone(), words));
            known.report.writes.push(Written { stage, write, code, was_fatal: false });
            (known.report.writes.len(), is_new)
        };
        let is_fatal = match self.case {
            Case::EveryWrite => is_new,
            Case::Write(fatal) => number == fatal,
            Case::Reference | Case::Stale | Case::Dropped | Case::Merged => false,
        };
        if is_fatal && self.supervisor.kill(life).await {
            self.known().report.writes[number - 1].was_fatal = true;
            bail!("the operator has died");
        }
        Ok(answer)
    }

    async fn list(
        &self,
        life: u64,
        key: String,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let past = {
            let known = self.known();
            let is_past = known.past_until.is_some_and(|until| Instant::now() < until);
            known.past.get(&key).filter(|_| is_past).cloned()
        };
        let is_past = past.is_some();
        let answer = match past {
            Some(past) => past,
            None => self.upstream.ask(request).await?,
        };
        let mut known = self.known();
        if known.listing != life {
            (known.listing, known.report.lists_of_life) = (life, 0);
        }
        known.report.lists_of_life += 1;
        if is_past {
            known.report.old_lists += 1;
        } else if answer.status.is_success() {
            known.lists.insert(key, answer.clone());
        }
        Ok(answer)
    }

    async fn watch(
        self: Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<AnyBody>> {
        let (past_until, number) = {
            let mut known = self.known();
            known.watches += 1;
            let past_until = known.past_until.filter(|until| Instant::now() < *until);
            known.report.held_watches += u64::from(past_until.is_some());
            (past_until, known.watches)
        };
        if let Some(until) = past_until {
            tokio::time::sleep_until(until.into()).await;
        }
        let (head, body) = self.upstream.open(request).await?.into_parts();
        let sift = match self.case {
            Case::Dropped => Sift::dropping(self.seed.wrapping_add(number)),
            Case::Merged => Sift::merging(),
            Case::Reference | Case::EveryWrite | Case::Write(_) | Case::Stale => Sift::plain(),
        };
        let (lines, arriving) = mpsc::channel(LINES_QUEUED);
        tokio::spawn(async move { self.pump(body, sift, lines).await });
        let body = Lines(arriving).map_err(|never| match never {}).boxed();
        Ok(Response::from_parts(head, body))
    }

    /// Carries a watch's lines until one side ends, or it expires.
    async fn pump(&self, mut body: Incoming, mut sift: Sift, lines: mpsc::Sender<Bytes>) {
        let begun = tokio::time::Instant::now();
        let mut rest = Vec::new();
        loop {
            let before = sift.withheld;
            let due = sift.due();
            let passed = tokio::select! {
                frame = body.frame() => match frame {
                    Some(Ok(frame)) => {
                        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
                        sifted(&mut rest, &mut sift, begun.elapsed())
                    }
                    Some(Err(_)) | None => Passed { lines: sift.flush(), is_over: true },
                },
                () = tokio::time::sleep_until(begun + due.unwrap_or_default()), if due.is_some() => {
                    let passed = sift.tick(begun.elapsed());
                    self.known().report.expired += u64::from(passed.is_over);
                    passed
                }
                () = lines.closed() => return,
            };
            self.known().report.withheld += sift.withheld - before;
            for line in passed.lines {
                if lines.send(Bytes::from(line + "\n")).await.is_err() {
                    return;
                }
            }
            if passed.is_over {
                return;
            }
        }
    }
}

/// Takes whole lines from what has arrived.
fn sifted(rest: &mut Vec<u8>, sift: &mut Sift, now: Duration) -> Passed {
    let mut passed = Passed::default();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line[..end]).into_owned();
        passed.lines.extend(sift.push(line, now).lines);
    }
    passed
}

fn whole(answer: Answer) -> Response<AnyBody> {
    let body = Full::new(answer.body).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// A body that grows line by line.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
