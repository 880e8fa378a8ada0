use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::Arc;

use super::*;
use crate::hash::sha256;

/// An HTTP server for one test: answers by path, and counts.
struct Server {
    base: String,
    hits: Arc<AtomicUsize>,
}

fn serve(answer: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let Some(Ok(request)) = lines.next() else { continue };
            for line in lines.by_ref() {
                if line.map_or(true, |l| l.is_empty()) {
                    break;
                }
            }
            let path = request.split(' ').nth(1).unwrap_or("").to_owned();
            let n = count.fetch_add(1, Ordering::SeqCst);
            let (status, body) = match answer(&path, n) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    Server { base, hits }
}

fn direct() -> Fetcher {
    Fetcher::new(crate::apt::parse_conf("Acquire::http::Proxy \"DIRECT\";"))
}

fn job(base: &str, path: &str, content: &[u8]) -> Job {
    Job {
        urls: vec![format!("{base}/{path}")],
        sha256: sha256(content),
        size: content.len() as u64,
        suffix: ".deb",
        label: path.to_owned(),
    }
}

#[test]
fn files_arrive_whole_and_are_fetched_once() {
    let server = serve(|path, _| Some(path.as_bytes().repeat(1000)));
    let dir = tempfile::tempdir().expect("a directory");
    let jobs: Vec<Job> = (0..9)
        .map(|i| {
            job(&server.base, &format!("f{i}"), format!("/f{i}").as_bytes().repeat(1000).as_slice())
        })
        .collect();
    let mut last = 0;
    let paths =
        direct().ensure_all(&jobs, dir.path(), &mut |bytes, _| last = bytes).expect("downloads");
    assert_eq!(last, 9 * 3000);
    assert_eq!(paths.len(), 9);
    assert_eq!(fs::read(&paths[4]).expect("readable"), b"/f4".repeat(1000));
    assert_eq!(server.hits.load(Ordering::SeqCst), 9);
    direct().ensure_all(&jobs, dir.path(), &mut |_, _| {}).expect("cached");
    assert_eq!(server.hits.load(Ordering::SeqCst), 9);
}

#[test]
fn a_damaged_cache_mends_itself() {
    let server = serve(|_, _| Some(b"content".to_vec()));
    let dir = tempfile::tempdir().expect("a directory");
    let jobs = [job(&server.base, "f", b"content")];
    let paths = direct().ensure_all(&jobs, dir.path(), &mut |_, _| {}).expect("downloads");
    for damage in [&b"cont"[..], &b"CONTENT"[..]] {
        fs::write(&paths[0], damage).expect("written");
        direct().ensure_all(&jobs, dir.path(), &mut |_, _| {}).expect("downloads");
        assert_eq!(fs::read(&paths[0]).expect("readable"), b"content");
    }
}

#[test]
fn a_damaged_download_is_tried_again_and_counted_once() {
    let server = serve(|_, n| Some(if n == 0 { b"cont".to_vec() } else { b"content".to_vec() }));
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = 0;
    direct()
        .ensure(&job(&server.base, "f", b"content"), dir.path(), &mut |n| bytes += n)
        .expect("the second try");
    assert_eq!(bytes, 7);
}

#[test]
fn what_is_wrong_every_time_is_an_error_and_leaves_nothing() {
    let server = serve(|path, _| (path != "/missing").then(|| b"other".to_vec()));
    let dir = tempfile::tempdir().expect("a directory");
    let error = direct()
        .ensure_all(&[job(&server.base, "f", b"content")], dir.path(), &mut |_, _| {})
        .expect_err("the wrong content");
    assert!(matches!(error, FetchError::Mismatch { .. }), "{error}");
    let error = direct()
        .ensure_all(&[job(&server.base, "missing", b"content")], dir.path(), &mut |_, _| {})
        .expect_err("not there");
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
}

#[test]
fn the_next_address_is_tried_when_one_is_missing() {
    let server = serve(|path, _| (path == "/b").then(|| b"content".to_vec()));
    let dir = tempfile::tempdir().expect("a directory");
    let mut job = job(&server.base, "a", b"content");
    job.urls.push(format!("{}/b", server.base));
    direct().ensure(&job, dir.path(), &mut |_| {}).expect("the second address");
}

#[test]
fn small_files_have_a_limit() {
    let server = serve(|_, _| Some(vec![b'x'; 100]));
    assert_eq!(direct().get(&server.base, 100).expect("fits").len(), 100);
    assert!(direct().get(&server.base, 99).is_err());
}
