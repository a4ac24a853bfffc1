//! Clients that want all the memory there is: by the largest pages, and by connections that say nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, scale};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{MEMORY, Shop, address, probing::Probing};

/// Clients that ask for the largest pages.
const CLIENTS: usize = 16;
/// Large records, and the bytes of each.
const RECORDS: (usize, usize) = (200, 600);
const RECORD_BYTES: usize = 500 << 10;
/// A page ends by its bytes after no more of them.
const PAGE_RECORDS: usize = 20;
const SECONDS: (usize, usize) = (5, 60);
/// The pause of a slow client between two parts of an answer.
const SLOW: Duration = Duration::from_millis(20);
/// Connections that say nothing.
const SOCKETS: (usize, usize) = (2_000, 10_000);
/// Where they come from, and where another client does.
const THEIRS: [u8; 4] = [127, 0, 0, 2];
const OTHERS: [u8; 4] = [127, 0, 0, 3];
/// The pause between two looks at the memory of a process.
const LOOK: Duration = Duration::from_millis(20);
/// How long another client may wait for its answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The most resident memory of a process that was seen while it was looked at, on a thread of its own.
struct Looking {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(DataPlane, u64)>,
}

impl Looking {
    fn start(process: DataPlane) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = process.resident_bytes().max(most);
                std::thread::sleep(LOOK);
            }
            (process, most)
        });
        Self { stop, thread }
    }

    fn end(self) -> (DataPlane, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_pages_stay_within_the_limit_of_memory() {
    let mut shop = Shop::open(1, "").await;
    let pod = shop.pods.remove(0);
    let api = Api::at(&pod.url);
    let records = scale::of(RECORDS.0, RECORDS.1);
    for number in 0..records {
        // no two alike, so that nothing can be shared
        let value = format!("{number:05}").repeat(RECORD_BYTES / 5);
        let path = format!("/api/v1/configurations/c{number:04}");
        let written = loop {
            let written = api.send(Method::PUT, &path, &[], &json!({ "value": value })).await;
            if written.status != 503 {
                break written;
            }
        };
        assert_eq!(written.status, 201, "{}", written.text);
    }
    let (url, gateway_url, before) = (pod.url.clone(), shop.gateway.url.clone(), pod.resident_bytes());
    let (pages, refused, bytes) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let probing = [Probing::start("pod", &pod), Probing::start("gateway", &shop.gateway)];
    let looking = [Looking::start(pod), Looking::start(shop.gateway)];
    let until = Instant::now() + Duration::from_secs(scale::of(SECONDS.0, SECONDS.1) as u64);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let url = if number % 2 == 0 { url.clone() } else { gateway_url.clone() };
            let counts = [pages.clone(), refused.clone(), bytes.clone()];
            tokio::spawn(async move {
                // each asks for pages of its own, so that none is made once for several
                for offset in (0..records - PAGE_RECORDS).cycle().skip(number * 5).step_by(CLIENTS) {
                    if Instant::now() > until {
                        break;
                    }
                    // half of all clients take their answers slowly
                    let (status, length) = largest_page(&url, offset, number % 4 < 2).await;
                    let [pages, refused, bytes] = &counts;
                    match status {
                        200 => pages.fetch_add(1, Ordering::Relaxed),
                        503 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{url}: {other}"),
                    };
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    for probing in probing {
        probing.end("the largest pages");
    }
    let [(pod, of_pod), (_gateway, of_gateway)] = looking.map(Looking::end);
    let [pages, refused, bytes] = [pages, refused, bytes].map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "{CLIENTS} clients: {pages} of the largest pages with {} MB in all, {refused} refused; the pod had {} MB before, and at most {} MB; \
         the gateway at most {} MB; the limit is {} MB",
        bytes >> 20,
        before >> 20,
        of_pod >> 20,
        of_gateway >> 20,
        MEMORY.1 >> 20
    );
    assert!(
        pages > 0 && refused + pages > CLIENTS as u64 && bytes > MEMORY.1 / 4,
        "they asked for much: {bytes}"
    );
    assert!(of_pod <= MEMORY.1 && of_gateway <= MEMORY.1);
    assert_eq!(Api::at(&pod.url).get("/api/v1/configurations/c0000").await.status, 200);
}

/// Asks for as much as there can be in a page; the status, and the bytes that came.
async fn largest_page(url: &str, offset: usize, slowly: bool) -> (u16, usize) {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let request = format!(
        "GET /api/v1/configurations?limit=1000&offset={offset} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut part, mut length, mut status) = (vec![0; 256 << 10], 0, 0);
    loop {
        let read = stream.read(&mut part).await.unwrap();
        if length == 0 {
            let head = String::from_utf8_lossy(&part[..read.min(64)]).into_owned();
            status = head
                .split(' ')
                .nth(1)
                .and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("{head:?}"));
        }
        length += read;
        if read == 0 {
            return (status, length);
        }
        if slowly {
            tokio::time::sleep(SLOW).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_stay_within_the_limit_and_others_are_served() {
    let mut shop = Shop::open(1, "").await;
    let count = scale::of(SOCKETS.0, SOCKETS.1);
    for (what, process) in [("pod", shop.pods.remove(0)), ("gateway", shop.gateway)] {
        let (target, before) = (address(&process.url).parse().unwrap(), process.resident_bytes());
        let mut silent = Vec::with_capacity(count);
        for _ in 0..count {
            silent.push(connect(THEIRS, target).await.unwrap());
        }
        let probing = Probing::start(what, &process);
        let (mut served, until) = (0, Instant::now() + Duration::from_secs(3));
        while Instant::now() < until {
            let begun = Instant::now();
            let mut stream = connect(OTHERS, target).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut answer = [0; 512];
            let length = stream.read(&mut answer).await.unwrap();
            assert!(
                answer[..length].starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer[..length])
            );
            assert!(begun.elapsed() < ANSWER, "{what}: {:?}", begun.elapsed());
            served += 1;
        }
        probing.end(&format!("{count} silent connections"));
        let open = silent.iter().filter(|stream| is_open(stream)).count();
        let resident = process.resident_bytes();
        eprintln!(
            "{what}: {open} silent connections of one address are open, {} kB each; {served} requests of another were answered; {} MB of {} MB",
            (resident.saturating_sub(before) / count as u64) >> 10,
            resident >> 20,
            MEMORY.1 >> 20
        );
        assert_eq!(open, count, "{what}: the attack went on to the end");
        assert!(resident <= MEMORY.1, "{what}: {resident}");
    }
}

/// Connects from an address of this machine.
async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Whether the other side has neither sent anything nor ended the connection.
fn is_open(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
