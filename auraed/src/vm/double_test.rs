//! A guest that is none: it speaks the contracts on the other end of a socket pair, as the guest's auraed does on its port.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::events::Events;
use super::logs::Logs;
use super::relay::{self, Link, Relay};
use crate::api::guest::v0 as guest;
use crate::api::guest::v0::log_records::Content;
use crate::api::pod::v0 as api;
use crate::api::pod::v0::pod_service_client::PodServiceClient;
use crate::pod::exits::Exits;
use crate::pod::journal::Journal;
use crate::rpc::GREETING;
use crate::rpc::{self, Answer, CONNECTION_WINDOW_BYTES, MAX_STREAMS, STREAM_WINDOW_BYTES, Serve};

const CHUNK: usize = 64 * 1024;

/// What the double is to say, and what it was told.
#[derive(Clone, Default)]
struct Double {
    events: Arc<Vec<api::Event>>,
    records: Arc<Vec<guest::LogRecords>>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
    log_acks: Arc<Mutex<Vec<guest::LogAck>>>,
    floods_under_way: Arc<AtomicUsize>,
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

impl Double {
    async fn exec(&self, mut input: Streaming<api::StreamInput>) -> Result<Response<Stream<api::StreamOutput>>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let first = input.message().await?.and_then(|message| message.input);
        let Some(api::stream_input::Input::Start(start)) = first else { return Err(Status::invalid_argument("no start")) };
        let under_way = self.floods_under_way.clone();
        let output = |bytes: Vec<u8>| Ok(api::StreamOutput { output: Some(api::stream_output::Output::Stdout(bytes.into())) });
        tokio::spawn(async move {
            if start.command == ["flood"] {
                under_way.fetch_add(1, Ordering::Relaxed);
                while sender.send(output(vec![0; CHUNK])).await.is_ok() {}
                under_way.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            while let Ok(Some(message)) = input.message().await {
                if let Some(api::stream_input::Input::Stdin(bytes)) = message.input {
                    let _ = sender.send(output(bytes.to_vec())).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn logs(&self, mut acks: Streaming<guest::LogAck>) -> Result<Response<Stream<guest::LogRecords>>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let double = self.clone();
        tokio::spawn(async move {
            assert_eq!(acks.message().await.unwrap().unwrap(), guest::LogAck::default());
            for message in double.records.iter() {
                sender.send(Ok(message.clone())).await.unwrap();
            }
            while let Ok(Some(ack)) = acks.message().await {
                double.log_acks.lock().unwrap().push(ack);
            }
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        match path.rsplit('/').next().unwrap() {
            "Hello" => {
                let serve = |request: Request<api::HelloRequest>| async move {
                    let mut response = Response::new(api::HelloResponse { pid: 1, ..Default::default() });
                    let echoed = request.metadata().get("x-request-id").cloned();
                    echoed.map(|id| response.metadata_mut().insert("x-echo", id));
                    Ok::<_, Status>(response)
                };
                Grpc::new(ProstCodec::default()).unary(tower::service_fn(serve), request).await
            }
            "ExecSync" => {
                let serve = |request: Request<api::ExecSyncRequest>| async move {
                    let size = usize::try_from(request.into_inner().output_limit_bytes).unwrap();
                    if size == 0 {
                        return Err(Status::failed_precondition("container x is exited, not running"));
                    }
                    Ok::<_, Status>(Response::new(api::ExecSyncResponse { stdout: vec![7; size].into(), ..Default::default() }))
                };
                let mut grpc = Grpc::new(ProstCodec::default()).apply_max_message_size_config(None, Some(64 << 20));
                grpc.unary(tower::service_fn(serve), request).await
            }
            "Exec" => {
                let serve = |request: Request<Streaming<api::StreamInput>>| {
                    let double = self.clone();
                    async move { double.exec(request.into_inner()).await }
                };
                Grpc::new(ProstCodec::default()).streaming(tower::service_fn(serve), request).await
            }
            "Events" => {
                let serve = |request: Request<api::EventsRequest>| {
                    let after = request.into_inner().after;
                    let events: Vec<_> = self.events.iter().filter(|event| event.number > after).cloned().map(Ok).collect();
                    let stream = tokio_stream::iter(events).chain(tokio_stream::pending());
                    async move { Ok::<_, Status>(Response::new(stream)) }
                };
                Grpc::new(ProstCodec::default()).server_streaming(tower::service_fn(serve), request).await
            }
            "AcknowledgeEvents" => {
                let serve = |request: Request<api::AcknowledgeEventsRequest>| {
                    self.acknowledged.lock().unwrap().push(request.into_inner().through);
                    async { Ok::<_, Status>(Response::new(api::AcknowledgeEventsResponse {})) }
                };
                Grpc::new(ProstCodec::default()).unary(tower::service_fn(serve), request).await
            }
            "Logs" => {
                let serve = |request: Request<Streaming<guest::LogAck>>| {
                    let double = self.clone();
                    async move { double.logs(request.into_inner()).await }
                };
                Grpc::new(ProstCodec::default()).streaming(tower::service_fn(serve), request).await
            }
            _ => Status::unimplemented(path).into_http(),
        }
    }
}

impl Service<http::Request<Body>> for Double {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let double = self.clone();
        Box::pin(async { Ok(double.answer(request).await) })
    }
}

/// Everything relayed, as `auraed vm` does with what is not its own.
#[derive(Clone)]
struct Relayed(Relay);

impl Serve for Relayed {
    fn serve(&self, request: http::Request<Body>) -> Answer {
        let relay = self.0.clone();
        Box::pin(async move { Ok(relay.forward(request).await.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http())) })
    }
}

/// A relay with a guest at its end, and a client at its front.
struct Scene {
    relay: Relay,
    client: PodServiceClient<tonic::transport::Channel>,
    /// The guest's end of the port once more: to close it, whoever else holds it.
    port: std::os::unix::net::UnixStream,
    _dir: tempfile::TempDir,
}

async fn scene(double: Double) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::default();
    relay.set(Link::Booting);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let port = std::os::unix::net::UnixStream::from(theirs.as_fd().try_clone_to_owned().unwrap());
    tokio::spawn(async move {
        theirs.write_all(GREETING).await.unwrap();
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs)).chain(tokio_stream::pending());
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let _ = server.serve_with_incoming(double, incoming).await;
    });
    let opening = relay.clone();
    tokio::spawn(async move {
        let (sender, connection) = relay::open(ours).await.unwrap();
        opening.set(Link::Open(sender));
        let _ = connection.await;
        opening.set(Link::Broken("the connection has ended".to_owned()));
    });
    let socket = dir.path().join("s");
    tokio::spawn(rpc::serve(UnixListener::bind(&socket).unwrap(), Relayed(relay.clone()), std::future::pending()));
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // As the daemon's: the connection's window covers every stream's.
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    Scene { relay, client: PodServiceClient::new(channel).max_decoding_message_size(64 << 20), port, _dir: dir }
}

impl Scene {
    fn end_guest(&self) {
        self.port.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn exec(command: &str) -> api::StreamInput {
    let start = api::ExecStart { command: vec![command.to_owned()], ..Default::default() };
    api::StreamInput { input: Some(api::stream_input::Input::Start(start)) }
}

#[tokio::test]
async fn nothing_is_said_to_a_guest_that_has_not_spoken() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(relay::open(ours));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(theirs.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let mut theirs = theirs;
    theirs.write_all(b"AURAED2\n").await.unwrap();
    let reason = opening.await.unwrap().err().unwrap();
    assert!(reason.contains("AURAED2"), "{reason}");

    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(relay::open(ours).await.err().unwrap().contains("closed"));
}

#[tokio::test]
async fn a_saved_guest_is_woken_by_the_byte_that_it_waits_for() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    relay::wake(&mut ours).await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), rpc::RESTORED);
    drop(theirs);
    assert!(relay::wake(&mut ours).await.unwrap_err().contains("cannot be woken"));
}

#[tokio::test]
async fn calls_answers_and_refusals_pass_as_they_are() {
    let mut scene = scene(Double::default()).await;
    let mut request = Request::new(api::HelloRequest::default());
    request.metadata_mut().insert("x-request-id", "r-1".parse().unwrap());
    let answer = scene.client.hello(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-echo").unwrap(), "r-1");
    assert_eq!(answer.into_inner().pid, 1);
    let large = api::ExecSyncRequest { output_limit_bytes: 32 << 20, ..Default::default() };
    assert_eq!(scene.client.exec_sync(large).await.unwrap().into_inner().stdout.len(), 32 << 20);
    let refused = scene.client.exec_sync(api::ExecSyncRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "container x is exited, not running"));
    let unknown = scene.client.stats(api::StatsRequest::default()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn both_directions_of_a_stream_pass_and_its_end() {
    let mut scene = scene(Double::default()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(exec("cat")).await.unwrap();
    let mut output = scene.client.exec(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    for size in [1, CHUNK, 3 * CHUNK] {
        let stdin = api::stream_input::Input::Stdin(vec![b'x'; size].into());
        sender.send(api::StreamInput { input: Some(stdin) }).await.unwrap();
        let Some(api::stream_output::Output::Stdout(bytes)) = output.message().await.unwrap().unwrap().output else { panic!("no output") };
        assert_eq!(bytes.len(), size);
    }
    drop(sender);
    assert!(output.message().await.unwrap().is_none());
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_stop_others_and_end_with_their_client() {
    let double = Double::default();
    let mut scene = scene(double.clone()).await;
    let mut stalled = Vec::new();
    for _ in 0..32 {
        // This client resets a stream only when its own side of it is over too.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(exec("flood")).await.unwrap();
        stalled.push((sender, scene.client.exec(ReceiverStream::new(receiver)).await.unwrap().into_inner()));
    }
    until("the floods begin", || double.floods_under_way.load(Ordering::Relaxed) == 32).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let hello = scene.client.hello(api::HelloRequest::default());
        tokio::time::timeout(Duration::from_secs(2), hello).await.expect("a call starved").unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("unary through the relay beside 32 stalled streams: p50 {:?}, p99 {:?}", times[100], times[198]);
    drop(stalled);
    until("the guest learns that nobody listens", || double.floods_under_way.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn calls_wait_for_a_guest_and_fail_with_the_reason_when_it_is_gone() {
    let relay = Relay::default();
    let hello = || {
        let mut client = PodServiceClient::new(relay.clone());
        tokio::spawn(async move { client.hello(api::HelloRequest::default()).await })
    };
    assert!(hello().await.unwrap().unwrap_err().message().contains("not started"));
    relay.set(Link::Booting);
    let waiting = hello();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    relay.set(Link::Ended("the VM has ended with 1: Kernel panic".to_owned()));
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the VM has ended with 1: Kernel panic"));

    let mut scene = scene(Double::default()).await;
    let input = tokio_stream::once(exec("flood")).chain(tokio_stream::pending());
    let mut stream = scene.client.exec(input).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    scene.end_guest();
    // What was under way breaks off; what comes then is told why.
    while let Ok(Some(_)) = stream.message().await {}
    let told = scene.relay.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        told.set(Link::Ended("the VM has ended with 137".to_owned()));
    });
    let status = scene.client.hello(api::HelloRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the VM has ended with 137"));
}

#[tokio::test]
async fn unary_latency_is_measured() {
    let mut scene = scene(Double::default()).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        scene.client.hello(api::HelloRequest::default()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    println!("unary through the relay: p50 {:?}, p99 {:?}", times[250], times[495]);
    assert!(times[250] < Duration::from_millis(50));
}

fn event(number: u64, id: &str, kind: api::EventKind, state: api::ContainerState, exit: Option<api::Exit>) -> api::Event {
    let container = api::Container { container_id: id.to_owned(), state: state.into(), exit, ..Default::default() };
    api::Event { number, timestamp_ns: 1, container: Some(container), kind: kind.into() }
}

#[tokio::test]
async fn the_guests_events_become_ours_and_are_acknowledged() {
    use api::{ContainerState as State, EventKind as Kind};
    let exit = Some(api::Exit { code: 3, oom_killed: false, finished_at_ns: 5 });
    let events = vec![
        event(1, "c", Kind::Created, State::Created, None),
        event(2, "../../evil", Kind::Created, State::Created, None),
        event(3, "c", Kind::Started, State::Running, None),
        event(4, "c", Kind::Exited, State::Exited, exit),
    ];
    let double = Double { events: Arc::new(events), ..Default::default() };
    let scene = scene(double.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = Events::new(Journal::default(), Exits::open(dir.path()).unwrap());
    let following = tokio::spawn(ours.clone().follow(scene.relay.clone()));
    until("all are acknowledged", || double.acknowledged.lock().unwrap().last() == Some(&4)).await;
    assert!(ours.ready_at_ns() > 0);
    let recorded: Vec<_> = ours.journal().after(0).into_iter().map(|event| (event.number, event.view.id)).collect();
    assert_eq!(recorded, [(1, "c".to_owned()), (2, "c".to_owned()), (3, "c".to_owned())]);
    assert!(std::fs::read_to_string(dir.path().join("exits/c.json")).unwrap().contains("\"code\":3"));
    scene.end_guest();
    tokio::time::timeout(Duration::from_secs(5), following).await.expect("it follows a guest that is gone").unwrap();
}

#[tokio::test]
async fn the_guests_records_reach_their_files_and_are_acknowledged() {
    let record = |number, id: &str, content| guest::LogRecords { container_id: id.to_owned(), number, content: Some(content) };
    let text = |text: &str| Content::Records(text.to_owned().into());
    let records = vec![
        record(1, "c", text("T stdout F one\n")),
        record(2, "stranger", text("T stdout F lost\n")),
        record(3, "c", Content::Reopen(guest::Reopen {})),
        record(4, "c", text("T stdout F two\n")),
    ];
    let double = Double { records: Arc::new(records), ..Default::default() };
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::default();
    logs.open("c", &dir.path().join("0.log")).unwrap();
    let scene = scene(double.clone()).await;
    let following = tokio::spawn(logs.clone().follow(scene.relay.clone()));
    until("all are acknowledged", || double.log_acks.lock().unwrap().len() == 4).await;
    let acks: Vec<_> = double.log_acks.lock().unwrap().iter().map(|ack| (ack.through, ack.error.is_empty())).collect();
    assert_eq!(acks, [(1, true), (2, false), (3, true), (4, true)]);
    assert_eq!(std::fs::read_to_string(dir.path().join("0.log")).unwrap(), "T stdout F one\nT stdout F two\n");
    scene.end_guest();
    tokio::time::timeout(Duration::from_secs(5), following).await.expect("it follows a guest that is gone").unwrap();
}
