//! What the release binaries of outbound webhooks take: the processor time of `webhook_deliver` for each
//! delivery, beside a bare loop that signs and posts the same bytes; how long an event waits for its first
//! byte at the receiver; the memory of a delivery that is under way; and whether a delivery of an event
//! with many endpoints takes more than one of an event with few.
//!
//! The functions are processes of their own under a Runtime API host. AWS and the receiver are in this
//! process, on loopback, and only what the functions' own processes take is counted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here ends the program, and what it prints is its result"
)]

mod aws;

use aws::{Aws, hold};
use aws_config::{BehaviorVersion, Region};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use crossdock::bus::EventBridge;
use crossdock::config::Config;
use crossdock::ctx::{Ctx, SystemClock};
use crossdock::model::event::EventType;
use crossdock::model::ids::MerchantId;
use crossdock::model::notice::{Envelope, Notice, StoredEvent};
use crossdock::net::{Client, Limits};
use crossdock::queue::Sqs;
use crossdock::secrets::SecretsManager;
use crossdock::store::dynamo::Dynamo;
use crossdock::store::{Condition, keys};
use crossdock::webhooks::deliver::{self, Delivery};
use crossdock::webhooks::endpoint::{self, Endpoint, Wish};
use crossdock::webhooks::{fanout, samples};
use futures::future::{join, join_all};
use local::stack::host::Host;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Messages of one invocation.
const BATCH: usize = 10;
/// Deliveries that are measured against the bare loop, after so many that warm both up.
const DELIVERIES: usize = 6000;
const WARM: usize = 300;
/// Events of the open loop, and the pause between two.
const EVENTS: usize = 300;
const PAUSE: Duration = Duration::from_millis(40);
/// Ticks of a second in /proc: USER_HZ, a hundred on every architecture that functions run on.
const TICKS: f64 = 100.0;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The receiver: what came when, by the id of the event, and how long it thinks.
#[derive(Default)]
struct Receiver {
    came: Mutex<HashMap<String, Instant>>,
    last: Mutex<Bytes>,
    thinks_ms: AtomicU64,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    hold(&receiver.came).entry(id).or_insert_with(Instant::now);
    *hold(&receiver.last) = body;
    let thinks = receiver.thinks_ms.load(Ordering::Relaxed);
    if thinks > 0 {
        tokio::time::sleep(Duration::from_millis(thinks)).await;
    }
    StatusCode::NO_CONTENT
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

const SETTINGS: [(&str, &str); 8] = [
    ("TABLE_RECORDS", "records"),
    ("TABLE_OUTBOX", "outbox"),
    ("TABLE_WEBHOOKS", "webhooks"),
    ("QUEUE_WEBHOOK_DELIVER_URL", "deliver"),
    ("QUEUE_WEBHOOK_RETRY_URL", "retry"),
    ("QUEUE_WEBHOOK_SLOW_URL", "slow"),
    ("SECRET_VAULT", "vault"),
    ("NET_ALLOW_LOOPBACK", "true"),
];

/// What the functions reach, as they make it themselves, with AWS at `endpoint`.
async fn context(endpoint: &str) -> Ctx {
    let key = aws_sdk_dynamodb::config::Credentials::new("test", "test", None, None, "bench");
    let sdk = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(key)
        .load()
        .await;
    let config = Config::of(&SETTINGS);
    Ctx {
        clock: Arc::new(SystemClock::default()),
        store: Arc::new(Dynamo::new(&sdk, config.tables())),
        secrets: Arc::new(SecretsManager::new(&sdk)),
        net: Arc::new(Client::new(true).unwrap()),
        queue: Arc::new(Sqs::new(&sdk)),
        bus: Arc::new(EventBridge::new(&sdk)),
        budgets: Mutex::default(),
        certificates: Mutex::default(),
        recent: Default::default(),
        config,
    }
}

struct Bench {
    aws: Arc<Aws>,
    receiver: Arc<Receiver>,
    url: String,
    endpoint: String,
    ctx: Ctx,
    variables: BTreeMap<String, String>,
    sent: UnboundedReceiver<(String, String)>,
    programs: PathBuf,
    logs: PathBuf,
}

impl Bench {
    async fn new() -> Bench {
        let (sender, sent) = unbounded_channel();
        let (aws, receiver) = (Aws::new(sender), Arc::new(Receiver::default()));
        let endpoint = format!("http://{}", serve(aws.router()).await);
        let hooks = Router::new().route("/hook", post(receive));
        let url = format!(
            "http://{}/hook",
            serve(hooks.with_state(receiver.clone())).await
        );
        let settings = SETTINGS;
        let mut variables: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        let ctx = context(&endpoint).await;
        // Beside the folder of this program stand the functions.
        let program = std::env::current_exe().unwrap();
        let programs = program.ancestors().nth(2).unwrap().to_owned();
        let logs = programs.join("webhooks-bench");
        std::fs::create_dir_all(&logs).unwrap();
        Bench {
            aws,
            receiver,
            url,
            endpoint,
            ctx,
            variables,
            sent,
            programs,
            logs,
        }
    }

    async fn host(&self, function: &str) -> Host {
        let program = self.programs.join(function);
        let host = Host::of(program, self.variables.clone(), Path::new("."), &self.logs);
        let mut host = host.await.unwrap();
        host.start(1).await.unwrap();
        host
    }

    async fn endpoint(&self, merchant: &MerchantId) -> Endpoint {
        let wish = Wish {
            url: Some(self.url.parse().unwrap()),
            event_types: Some(EventType::ALL.into_iter().collect()),
            ..Wish::default()
        };
        let made = endpoint::register(&self.ctx, merchant, wish, Some(SECRET.into())).await;
        made.unwrap().0
    }

    /// What was sent to the queue of deliveries since this was asked last.
    fn messages(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Ok((queue, body)) = self.sent.try_recv() {
            assert_eq!(queue, "deliver", "nothing fails here");
            bodies.push(body);
        }
        bodies
    }

    /// Events of which every endpoint of `of` gets one, made ready to be delivered.
    async fn deliveries(&mut self, of: &[Endpoint], events: usize) -> Vec<String> {
        for number in 0..events {
            let one = &of[number % of.len()];
            let notice = samples::store(&self.ctx, one, EventType::OrderCreated)
                .await
                .unwrap();
            let made = fanout::fan_out(&self.ctx, std::slice::from_ref(&notice)).await;
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        }
        self.messages()
    }
}

/// The payload of an invocation by a queue.
fn records(bodies: &[String]) -> Value {
    let record = |(index, body): (usize, &String)| {
        json!({
            "messageId": index.to_string(), "receiptHandle": "-", "body": body, "attributes": {},
            "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:queue", "awsRegion": "us-east-1",
        })
    };
    json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() })
}

/// Lets the function do batch after batch, and returns the seconds of processor time that it took.
async fn work(host: &Host, bodies: &[String], batch: usize) -> f64 {
    let before = spent(host);
    for bodies in bodies.chunks(batch) {
        for ended in host.ended(&host.give(vec![records(bodies)])).await {
            let failures = &ended.unwrap()["batchItemFailures"];
            assert_eq!(failures.as_array().map(Vec::len), Some(0), "{failures}");
        }
    }
    spent(host) - before
}

fn file(host: &Host, name: &str) -> String {
    let process = host.processes().next().unwrap();
    std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap()
}

/// Processor time of the function's process, in seconds: fields 14 and 15 of proc(5)'s `stat`.
fn spent(host: &Host) -> f64 {
    let stat = file(host, "stat");
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<f64> = rest
        .split(' ')
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    (ticks[11] + ticks[12]) / TICKS
}

/// The most memory that the process ever had, in kilobytes.
fn peak(host: &Host) -> f64 {
    let status = file(host, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Seconds of processor time that this thread has had.
fn thread() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Runs `work` on this thread and no other.
fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// What the steps of a delivery take by themselves, in seconds of processor time for one: where the time of
/// `webhook_deliver` goes.
fn steps(aws: &str, notice: &Notice, endpoint: &Endpoint) -> Vec<(&'static str, f64)> {
    alone(async {
        let ctx = context(aws).await;
        let (merchant, event_id) = (&notice.merchant_id, &notice.event_id);
        let row = keys::event(merchant, event_id);
        let event: StoredEvent = ctx.store.get(&row).await.unwrap().unwrap().read().unwrap();
        let delivery = Delivery::new(endpoint.id.clone(), notice, ctx.now());
        let at = keys::delivery(merchant, &endpoint.id, notice.accepted_at, event_id);
        let mut steps = Vec::new();
        let each = |seconds: f64| seconds / DELIVERIES as f64;
        for _ in 0..2 {
            // The first round warms up.
            steps.clear();
            let begun = thread();
            for _ in 0..DELIVERIES / BATCH {
                // The calls for ten deliveries read ten rows each; here they read one each, and what the
                // rows take stands with the rest.
                let (row, at) = ([row.clone()], [at.clone()]);
                let read = join(ctx.store.get_many_settled(&row), ctx.store.get_many(&at)).await;
                assert!(read.0.is_ok() && read.1.is_ok());
            }
            steps.push(("a tenth of BatchGetItem", each(thread() - begun)));
            let mut requests = Vec::new();
            let begun = thread();
            for _ in 0..DELIVERIES {
                let made = deliver::request(&ctx, endpoint, &event, 1).await;
                requests.push(made.unwrap());
            }
            steps.push(("opening the vault, body, signature", each(thread() - begun)));
            let begun = thread();
            while !requests.is_empty() {
                let some = requests.drain(..BATCH);
                let sent = some.map(|request| ctx.net.send(request, Limits::WEBHOOK));
                assert!(join_all(sent).await.iter().all(Result::is_ok));
            }
            steps.push(("the POST", each(thread() - begun)));
            let begun = thread();
            for _ in 0..DELIVERIES / BATCH {
                let writes = (0..BATCH).map(|_| delivery.writes(Condition::Any).unwrap().remove(0));
                let written = writes.map(|write| ctx.store.write(write));
                assert!(join_all(written).await.iter().all(Result::is_ok));
            }
            steps.push(("UpdateItem", each(thread() - begun)));
        }
        steps
    })
}

/// A client that signs and posts `body`, ten times side by side, and nothing else: the seconds of processor
/// time of its thread.
#[expect(
    clippy::disallowed_methods,
    reason = "it is the measure of the outbound client"
)]
fn bare(url: String, body: Bytes) -> f64 {
    alone(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let webhook = Webhook::new(SECRET).unwrap();
        let one = async |number: usize| {
            let id = format!("bare-{number}");
            let now = chrono::Utc::now().timestamp();
            let signature = webhook.sign(&id, now, &body).unwrap();
            let call = client
                .post(&url)
                .header("content-type", "application/json")
                .header("webhook-id", id)
                .header("webhook-timestamp", now.to_string())
                .header("webhook-signature", signature)
                .body(body.clone());
            assert_eq!(call.send().await.unwrap().status().as_u16(), 204);
        };
        let mut begun = thread();
        for number in (0..WARM + DELIVERIES).step_by(BATCH) {
            if number == WARM {
                begun = thread();
            }
            join_all((number..number + BATCH).map(&one)).await;
        }
        thread() - begun
    })
}

fn merchant(number: usize) -> MerchantId {
    format!("m_{number}").parse().unwrap()
}

fn envelope(notice: &Notice) -> String {
    serde_json::to_string(&Envelope {
        detail: notice.clone(),
    })
    .unwrap()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut bench = Bench::new().await;
    against_a_bare_loop(&mut bench).await;
    first_byte(&mut bench).await;
    memory(&mut bench).await;
    many_endpoints(&mut bench).await;
}

async fn against_a_bare_loop(bench: &mut Bench) {
    let endpoint = bench.endpoint(&merchant(0)).await;
    let bodies = bench
        .deliveries(std::slice::from_ref(&endpoint), WARM + DELIVERIES)
        .await;
    let host = bench.host("webhook_deliver").await;
    work(&host, &bodies[..WARM], BATCH).await;
    bench.aws.calls();
    let ours = work(&host, &bodies[WARM..], BATCH).await;
    let calls = bench.aws.calls();
    let body = hold(&bench.receiver.last).clone();
    let bytes = body.len();
    let url = bench.url.clone();
    let bare = tokio::task::spawn_blocking(|| bare(url, body))
        .await
        .unwrap();
    let (each, bare_each) = (
        ours * 1e6 / DELIVERIES as f64,
        bare * 1e6 / DELIVERIES as f64,
    );
    println!("{DELIVERIES} deliveries of {bytes} bytes in batches of {BATCH}:");
    println!(
        "  webhook_deliver: {each:.0} µs of processor time each, {:.0} a second",
        1e6 / each
    );
    println!(
        "  bare loop:       {bare_each:.0} µs each, {:.0} a second",
        1e6 / bare_each
    );
    println!("  {:.2} of the bare loop", bare / ours);
    let kind = EventType::OrderCreated;
    let notice = samples::store(&bench.ctx, &endpoint, kind).await.unwrap();
    let aws = bench.endpoint.clone();
    let steps = tokio::task::spawn_blocking(move || steps(&aws, &notice, &endpoint)).await;
    let mut rest = ours / DELIVERIES as f64;
    for (step, seconds) in steps.unwrap() {
        rest -= seconds;
        println!("    {step:<36} {:>4.0} µs", seconds * 1e6);
    }
    println!(
        "    {:<36} {:>4.0} µs",
        "Lambda's own API, rows, log: the rest",
        rest * 1e6
    );
    for (call, number) in calls {
        println!(
            "  {call}: {:.3} for each delivery",
            number as f64 / DELIVERIES as f64
        );
    }
}

/// An open loop: an event every [`PAUSE`], through the fan-out and the queue, whatever became of the one
/// before it.
async fn first_byte(bench: &mut Bench) {
    let endpoint = bench.endpoint(&merchant(1)).await;
    let (fan, deliver) = (
        bench.host("webhook_fanout").await,
        bench.host("webhook_deliver").await,
    );
    let mut begun = HashMap::new();
    let mut ticks = tokio::time::interval(PAUSE);
    let mut left = EVENTS;
    let quiet = Instant::now() + PAUSE * u32::try_from(EVENTS).unwrap() + Duration::from_secs(10);
    while Instant::now() < quiet && (left > 0 || hold(&bench.receiver.came).len() < begun.len()) {
        tokio::select! {
            _ = ticks.tick(), if left > 0 => {
                if left == EVENTS {
                    hold(&bench.receiver.came).clear();
                }
                left -= 1;
                let kind = EventType::OrderCreated;
                let begins = Instant::now();
                let notice = samples::store(&bench.ctx, &endpoint, kind).await.unwrap();
                begun.insert(notice.event_id.to_string(), begins);
                fan.give(vec![records(&[envelope(&notice)])]);
            }
            Some((_, body)) = bench.sent.recv() => {
                deliver.give(vec![records(&[body])]);
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    let came = hold(&bench.receiver.came).clone();
    let mut waits: Vec<f64> = begun
        .iter()
        .filter_map(|(id, begun)| Some((*came.get(id)? - *begun).as_secs_f64() * 1e3))
        .collect();
    assert_eq!(waits.len(), EVENTS, "each arrives");
    waits.sort_by(f64::total_cmp);
    let at = |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)];
    println!(
        "\nfrom the storing of an event to the first bytes at the receiver, {} a second, without what stream, \
         bus and queues take: p50 {:.1} ms, p99 {:.1} ms, the first {:.1} ms at most",
        1000 / PAUSE.as_millis(),
        at(50),
        at(99),
        waits[waits.len() - 1]
    );
}

/// Receivers that think for long, and more and more of them at once.
async fn memory(bench: &mut Bench) {
    let endpoint = bench.endpoint(&merchant(2)).await;
    println!("\nmemory of the process at its most, with so many deliveries under way:");
    let mut first = None;
    for at_once in [1, 10, 100, 1000] {
        let bodies = bench
            .deliveries(std::slice::from_ref(&endpoint), at_once)
            .await;
        let host = bench.host("webhook_deliver").await;
        bench.receiver.thinks_ms.store(3000, Ordering::Relaxed);
        work(&host, &bodies, at_once).await;
        bench.receiver.thinks_ms.store(0, Ordering::Relaxed);
        let peak = peak(&host);
        let (few, least) = *first.get_or_insert((at_once, peak));
        let each = (peak - least) / (at_once - few).max(1) as f64;
        println!(
            "  {at_once:>5}: {:.1} MB, {each:.0} kB for each more than {few}",
            peak / 1e3
        );
    }
}

/// One event for each merchant, and for each of his endpoints a delivery.
async fn many_endpoints(bench: &mut Bench) {
    println!("\nprocessor time of a delivery, by the endpoints of an event:");
    let (fan, deliver) = (
        bench.host("webhook_fanout").await,
        bench.host("webhook_deliver").await,
    );
    let mut number = 10;
    for (merchants, each) in [(100, 1), (100, 10), (10, 100), (100, 100)] {
        let mut notices = Vec::new();
        for _ in 0..merchants {
            number += 1;
            let merchant = merchant(number);
            let mut made = Vec::new();
            for _ in 0..each {
                made.push(bench.endpoint(&merchant).await);
            }
            let kind = EventType::OrderCreated;
            let notice = samples::store(&bench.ctx, &made[0], kind).await.unwrap();
            notices.push(envelope(&notice));
        }
        let fanned = work(&fan, &notices, BATCH).await;
        let bodies = bench.messages();
        assert_eq!(bodies.len(), merchants * each);
        let delivered = work(&deliver, &bodies, BATCH).await;
        let micros = |seconds: f64| seconds * 1e6 / bodies.len() as f64;
        println!(
            "  {merchants:>3} events to {each:>3} endpoints, {:>5} deliveries: fan-out {:>4.0} µs, delivery {:>4.0} µs",
            bodies.len(),
            micros(fanned),
            micros(delivered)
        );
    }
}
