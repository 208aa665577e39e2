//! The door against servers and names that mean harm. Every server listens on loopback.

use super::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHORT: Limits = Limits {
    total: Duration::from_millis(400),
    body_bytes_max: 16 << 10,
    cut: true,
};

/// A lookup that gives one answer after the other, the last one for ever, and counts.
fn lookup(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let parse = |text: &&str| SocketAddr::new(text.parse().expect("an address"), 0);
    let answers: Vec<Vec<SocketAddr>> = answers
        .iter()
        .map(|answer| answer.iter().map(parse).collect())
        .collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        let answer = answers[turn.min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    });
    (lookup, asked)
}

/// A server that does `serve` with every connection, after the head of a request unless it is `raw`.
/// Says its port and how many connections there were.
async fn server<F>(
    address: &str,
    raw: bool,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (u16, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let met = Arc::new(AtomicUsize::new(0));
    let count = met.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            if !raw {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
            }
            tokio::spawn(serve(stream));
        }
    });
    (port, met)
}

async fn say(mut stream: TcpStream, text: &'static str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

fn to(url: &str) -> Request {
    Request::new(Method::Post, url.parse().expect("a URL")).body("text/plain", "hello")
}

/// What comes of a call to a name of this machine, with what was noted.
async fn call(port: u16, lookup: Lookup) -> (Result<Response>, Timings) {
    let client = Client::with_lookup(Guard::new(true), lookup).expect("a client");
    let request = to(&format!("http://localhost:{port}/hook"));
    timed(client.send(request, SHORT)).await
}

fn here() -> Lookup {
    lookup(&[&["127.0.0.1"]]).0
}

#[tokio::test]
async fn one_bad_address_among_good_ones_refuses_all() {
    let (port, met) = server("127.0.0.1:0", false, |stream| say(stream, OK)).await;
    for answer in [["127.0.0.1", "10.0.0.1"], ["fd00:ec2::254", "127.0.0.1"]] {
        let (lookup, _) = lookup(&[&answer]);
        let refused = call(port, lookup).await.0.expect_err("refused");
        assert_eq!(refused.code(), Code::AddressRefused, "{answer:?}");
    }
    assert_eq!(met.load(Ordering::SeqCst), 0);
    // And in production this machine itself is a bad address, under whatever name.
    let (lookup, _) = lookup(&[&["127.0.0.1"]]);
    let client = Client::with_lookup(Guard::new(false), lookup).expect("a client");
    let outcome = client.send(to("https://shop.example/"), SHORT).await;
    assert_eq!(outcome.expect_err("refused").code(), Code::AddressRefused);
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_connected_to() {
    let (port, right) = server("127.0.0.1:0", false, |stream| say(stream, OK)).await;
    let other = format!("127.0.0.2:{port}");
    let (_, wrong) = server(&other, false, |stream| say(stream, OK)).await;
    let (lookup, asked) = lookup(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let (answer, timings) = call(port, lookup).await;
    assert_eq!(answer.expect("an answer").status, 200);
    let counts = [&right, &wrong, &asked].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [1, 0, 1]);
    assert!(timings.dns_ms.is_some() && timings.connect_ms.is_some());
    assert!(timings.first_byte_ms.is_some() && timings.tls_ms.is_none());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (elsewhere, met) = server("127.0.0.1:0", false, |stream| say(stream, OK)).await;
    for status in [301, 302, 303, 307, 308] {
        let (port, _) = server("127.0.0.1:0", false, move |mut stream| async move {
            let head = format!(
                "HTTP/1.1 {status} Moved\r\nlocation: http://localhost:{elsewhere}/\r\n\
                 content-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
        })
        .await;
        let answer = call(port, here()).await.0.expect("an answer");
        assert_eq!(answer.status, status);
    }
    assert_eq!(met.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_endless_reply_is_cut() {
    let (port, _) = server("127.0.0.1:0", false, |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
    })
    .await;
    let answer = call(port, here()).await.0.expect("the beginning");
    assert_eq!(answer.body.len(), 16 << 10);
}

/// What a peer does to hold a call or to break it gets an error in time, never an answer.
#[tokio::test]
async fn a_hostile_peer_holds_nobody_longer_than_the_deadline() {
    async fn judge(what: &str, port: u16, head: bool) {
        let begun = std::time::Instant::now();
        let (outcome, timings) = call(port, here()).await;
        assert_eq!(
            outcome.expect_err(what).code(),
            Code::UpstreamFailed,
            "{what}"
        );
        assert!(begun.elapsed() < Duration::from_secs(2), "{what}");
        assert!(timings.connect_ms.is_some(), "{what}");
        assert_eq!(timings.first_byte_ms.is_some(), head, "{what}");
    }
    let (port, _) = server("127.0.0.1:0", false, |stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    judge("silence", port, false).await;
    let (port, _) = server("127.0.0.1:0", false, |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    judge("a slow drip", port, true).await;
    let (port, _) = server("127.0.0.1:0", false, |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-flood: y\r\n").await.is_ok() {}
    })
    .await;
    judge("endless headers", port, false).await;
    let (port, _) = server("127.0.0.1:0", false, |mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-huge: ").await;
        while stream.write_all(&[b'y'; 1000]).await.is_ok() {}
    })
    .await;
    judge("an endless header", port, false).await;
    let (port, _) = server("127.0.0.1:0", true, |stream| async move { drop(stream) }).await;
    judge("a reset", port, false).await;
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nok";
    let (port, _) = server("127.0.0.1:0", false, move |stream| say(stream, text)).await;
    judge("half an answer", port, true).await;
}

/// TCP and TLS are told apart: what was reached is noted, and what was not is absent.
#[tokio::test]
async fn a_handshake_that_is_never_answered_ends_and_is_seen() {
    let (port, met) = server("127.0.0.1:0", true, |stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let client = Client::with_lookup(Guard::new(true), here()).expect("a client");
    let request = to(&format!("https://localhost:{port}/"));
    let (outcome, timings) = timed(client.send(request, SHORT)).await;
    assert_eq!(outcome.expect_err("late").code(), Code::UpstreamFailed);
    assert_eq!(met.load(Ordering::SeqCst), 1);
    assert!(timings.dns_ms.is_some() && timings.connect_ms.is_some());
    assert!(timings.tls_ms.is_none() && timings.first_byte_ms.is_none());
}

#[tokio::test]
async fn an_open_connection_is_used_again_and_needs_no_time() {
    let keep = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (port, met) = server("127.0.0.1:0", true, move |mut stream| async move {
        let mut head = [0; 4096];
        while stream.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {
            let _ = stream.write_all(keep.as_bytes()).await;
        }
    })
    .await;
    let client = Client::with_lookup(Guard::new(true), here()).expect("a client");
    let url = format!("http://localhost:{port}/");
    for first in [true, false] {
        let mut request = to(&url);
        // In one piece, so that the server reads it at once.
        request.body.clear();
        let (answer, timings) = timed(client.send(request, SHORT)).await;
        assert!(answer.expect("an answer").is_success());
        assert_eq!(timings.dns_ms.is_some(), first);
        assert_eq!(timings.connect_ms.is_some(), first);
        assert!(timings.first_byte_ms.is_some());
    }
    assert_eq!(met.load(Ordering::SeqCst), 1);
}

#[test]
fn a_url_is_judged_before_it_is_resolved() {
    let judge = |text: &str, loopback| {
        text.parse()
            .is_ok_and(|url| Guard::new(loopback).check_target(&url).is_ok())
    };
    for good in [
        "https://example.com/hook",
        "https://example.com:8443/hook",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ] {
        assert!(judge(good, false), "{good}");
    }
    for bad in [
        "http://example.com/hook",
        "http://example.com:443/hook",
        "https://user:word@example.com/",
        "https://user@example.com/",
        "https://example.com:6379/",
        "https://example.com:22/",
        "https://example.com:80/",
        "https://example.com:0/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://127.1/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://2130706433/",
        "https://%31%32%37.0.0.1/",
        "https://１２７.0.0.1/",
        "https://127。0。0。1/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://169.254.169.254/latest/meta-data/",
        "ftp://example.com/",
        "file:///etc/passwd",
    ] {
        assert!(!judge(bad, false), "{bad}");
    }
    assert!(judge("http://localhost:8799/hook", true));
    assert!(judge("http://[::1]:8799/hook", true));
    assert!(!judge("http://localhost:8799/hook", false));
    assert!(!judge("https://localhost:8799/hook", false));
    assert!(!judge("http://example.com/hook", true));
    assert!(!judge("https://example.com:8799/hook", true));
    // Names with a dot at the end are judged when they resolve, as all names are.
    assert!(judge("https://example.com./hook", false));
    // Where a browser goes, its owner chose the port.
    let page = "https://example.com:3000/back".parse().expect("a URL");
    assert!(Guard::new(false).check_url(&page).is_ok());
}

/// The IANA special-purpose address registries, every row in their order, both as last updated on
/// 2025-10-09: <https://www.iana.org/assignments/iana-ipv4-special-registry/> and
/// <https://www.iana.org/assignments/iana-ipv6-special-registry/>. A block, and what stands under
/// "Globally Reachable". `None` is for "N/A" (Teredo, 6to4), and for the empty field of an
/// assignment that has ended (the 6to4 relays, the first ORCHID).
const REGISTRY: &[(&str, Option<bool>)] = &[
    ("0.0.0.0/8", Some(false)),
    ("0.0.0.0/32", Some(false)),
    ("10.0.0.0/8", Some(false)),
    ("100.64.0.0/10", Some(false)),
    ("127.0.0.0/8", Some(false)),
    ("169.254.0.0/16", Some(false)),
    ("172.16.0.0/12", Some(false)),
    ("192.0.0.0/24", Some(false)),
    ("192.0.0.0/29", Some(false)),
    ("192.0.0.8/32", Some(false)),
    ("192.0.0.9/32", Some(true)),
    ("192.0.0.10/32", Some(true)),
    ("192.0.0.170/32", Some(false)),
    ("192.0.0.171/32", Some(false)),
    ("192.0.2.0/24", Some(false)),
    ("192.31.196.0/24", Some(true)),
    ("192.52.193.0/24", Some(true)),
    ("192.88.99.0/24", None),
    ("192.88.99.2/32", Some(false)),
    ("192.168.0.0/16", Some(false)),
    ("192.175.48.0/24", Some(true)),
    ("198.18.0.0/15", Some(false)),
    ("198.51.100.0/24", Some(false)),
    ("203.0.113.0/24", Some(false)),
    ("240.0.0.0/4", Some(false)),
    ("255.255.255.255/32", Some(false)),
    ("::1/128", Some(false)),
    ("::/128", Some(false)),
    ("::ffff:0:0/96", Some(false)),
    ("64:ff9b::/96", Some(true)),
    ("64:ff9b:1::/48", Some(false)),
    ("100::/64", Some(false)),
    ("100:0:0:1::/64", Some(false)),
    ("2001::/23", Some(false)),
    ("2001::/32", None),
    ("2001:1::1/128", Some(true)),
    ("2001:1::2/128", Some(true)),
    ("2001:1::3/128", Some(true)),
    ("2001:2::/48", Some(false)),
    ("2001:3::/32", Some(true)),
    ("2001:4:112::/48", Some(true)),
    ("2001:10::/28", None),
    ("2001:20::/28", Some(true)),
    ("2001:30::/28", Some(true)),
    ("2001:db8::/32", Some(false)),
    ("2002::/16", None),
    ("2620:4f:8000::/48", Some(true)),
    ("3fff::/20", Some(false)),
    ("5f00::/16", Some(false)),
    ("fc00::/7", Some(false)),
    ("fe80::/10", Some(false)),
];

/// What is refused beyond the rows with "False" or `None`. Of what the registries call reachable:
/// services that serve no web pages, or an IPv4 address inside an IPv6 one.
const REFUSED_TOO: &[&str] = &[
    // Anycast of PCP and TURN, AS112, AMT.
    "192.0.0.9/32",
    "192.0.0.10/32",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.175.48.0/24",
    "2620:4f:8000::/48",
    // All of the IETF's protocol assignments; more specific rows let some of them through.
    "2001::/23",
    // NAT64.
    "64:ff9b::/96",
    // Multicast, which has registries of its own.
    "224.0.0.0/4",
    // What is not global unicast: everything outside 2000::/3, multicast among it
    // (https://www.iana.org/assignments/ipv6-address-space/).
    "::/3",
    "4000::/2",
    "8000::/1",
];

/// A block as its first address, its last, and whether it is of IPv4.
fn block(text: &str) -> (u128, u128, bool) {
    let (first, length) = text.split_once('/').expect("a block");
    let length: u32 = length.parse().expect("a length");
    let (first, bits, v4) = match first.parse().expect("an address") {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32, true),
        IpAddr::V6(address) => (address.to_bits(), 128, false),
    };
    let last = first | u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
    (first, last, v4)
}

fn address(bits: u128, v4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if v4 => IpAddr::from(bits.to_be_bytes()),
        _ => IpAddr::from(bits.to_be_bytes()),
    }
}

/// What the tables say of an address.
fn expected(address: IpAddr) -> bool {
    let (bits, v4) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), true),
        IpAddr::V6(address) => (address.to_bits(), false),
    };
    let inside = |text: &str| {
        let (first, last, of) = block(text);
        of == v4 && (first..=last).contains(&bits)
    };
    let special = REGISTRY
        .iter()
        .any(|(text, reachable)| *reachable != Some(true) && inside(text));
    // ISATAP (RFC 5214 §6.1) is no block of its own: it may stand behind any prefix.
    let isatap = !v4 && matches!((bits >> 32) & 0xffff_ffff, 0x5efe | 0x0200_5efe);
    !special && !isatap && !REFUSED_TOO.iter().any(|text| inside(text))
}

fn agrees(address: IpAddr) {
    let allowed = Guard::new(false).allows(address);
    assert_eq!(allowed, expected(address), "{address}");
}

#[test]
fn every_block_of_the_registries_ends_where_it_says() {
    let blocks = REGISTRY.iter().map(|(text, _)| *text);
    for text in blocks.chain(REFUSED_TOO.iter().copied()) {
        let (first, last, v4) = block(text);
        for inside in [first, last, first.midpoint(last)] {
            let inside = address(inside, v4);
            assert!(!Guard::new(false).allows(inside), "{inside} of {text}");
        }
        let most = if v4 { u128::from(u32::MAX) } else { u128::MAX };
        for outside in [first.checked_sub(1), last.checked_add(1)] {
            if let Some(outside) = outside.filter(|outside| *outside <= most) {
                agrees(address(outside, v4));
            }
        }
    }
    for text in ["8.8.8.8", "1.1.1.1", "100.63.255.255", "2606:4700::1111"] {
        assert!(Guard::new(false).allows(text.parse().expect("an address")));
    }
    let local = |text: &str| Guard::new(true).allows(text.parse().expect("an address"));
    assert!(local("127.0.0.1") && local("::1") && !local("10.0.0.1"));
}

proptest::proptest! {
    #[test]
    fn every_ipv4_address_is_judged_by_the_registry(bits: u32) {
        agrees(IpAddr::from(bits.to_be_bytes()));
    }

    #[test]
    fn every_ipv6_address_is_judged_by_the_registry(bits: u128) {
        agrees(IpAddr::from(bits.to_be_bytes()));
        // And among what is given out, which is an eighth of it.
        agrees(IpAddr::from((bits >> 3 | 1 << 125).to_be_bytes()));
    }

    #[test]
    fn addresses_in_and_around_special_blocks_are_judged_by_the_registry(
        which in proptest::sample::select(REGISTRY), random: u128, far in 1_u128..1 << 40,
    ) {
        let (first, last, v4) = block(which.0);
        let inside = first + match (last - first).checked_add(1) {
            Some(size) => random % size,
            None => random,
        };
        proptest::prop_assert!(!Guard::new(false).allows(address(inside, v4)));
        let most = if v4 { u128::from(u32::MAX) } else { u128::MAX };
        let far = if v4 { far % (1 << 12) } else { far };
        for outside in [first.checked_sub(far), last.checked_add(far)] {
            if let Some(outside) = outside.filter(|outside| *outside <= most) {
                agrees(address(outside, v4));
            }
        }
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_refused(v4: u32, low: u32, global in 0x2400_u128..0x2500) {
        // Private and public ones alike.
        for v4 in [v4, 0x7f00_0001, 0x0a00_0001, 0xa9fe_a9fe, 0x0808_0808].map(u128::from) {
            let forms = [
                ("mapped", 0xffff << 32 | v4),
                ("compatible", v4),
                ("translated", 0xffff << 48 | v4),
                ("NAT64", 0x0064_ff9b << 96 | v4),
                ("local NAT64", 0x0064_ff9b_0001 << 80 | v4),
                ("6to4", 0x2002 << 112 | v4 << 80 | u128::from(low)),
                ("Teredo", 0x2001_0000 << 96 | u128::from(low) << 64 | (v4 ^ 0xffff_ffff)),
                ("ISATAP", global << 112 | 0x5efe << 32 | v4),
                ("global ISATAP", global << 112 | 0x0200_5efe << 32 | v4),
                ("link-local ISATAP", 0xfe80 << 112 | 0x5efe << 32 | v4),
            ];
            for (form, bits) in forms {
                let address = IpAddr::from(bits.to_be_bytes());
                proptest::prop_assert!(!Guard::new(false).allows(address), "{form}: {address}");
            }
        }
    }
}
