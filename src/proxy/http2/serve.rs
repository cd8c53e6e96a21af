//! One client's connection of HTTP/2: each of its streams is a request of its own, with a task of its own.

use super::stream::{Receiver, Sender};
use super::wire::{Violation, Wire};
use super::{CONNECTION_WINDOW, Code, FRAME, MAX_RESETS, MAX_STREAMS, SEND_BUFFER, WINDOW, head};
use crate::clock;
use crate::proxy::answer::{Asked, Problem};
use crate::proxy::exchange::{Caller, End};
use crate::proxy::fields::Delimiter;
use crate::proxy::inflow::Inflow;
use crate::proxy::limit::Permit;
use crate::proxy::outflow::Outflow;
use crate::proxy::request::RequestHead;
use crate::proxy::socket::{Reader, Writer};
use crate::proxy::timer::Timer;
use crate::proxy::turn::Turn;
use crate::proxy::{Proxy, memory::Full};
use crate::worker::{self, Heads};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// What is left to be said when a connection ends on our side must be taken within this time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a client's connection is counted as that was ended for what it sent.
const BROKE_THE_RULES: Problem = Problem::BadRequest("the client broke the rules of HTTP/2");

/// Serves a connection that begins with [`super::PREFACE`], which lies ahead in `reader`, until it ends.
pub(in crate::proxy) async fn serve(
    proxy: &Arc<Proxy>,
    reader: Box<Reader>,
    mut writer: Writer,
    peer: SocketAddr,
    permit: &Permit,
) {
    // Its streams may rightly be silent for hours.
    writer.keep_alive();
    let server = proxy.table().server.clone();
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(u32::try_from(server.max_header).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_pending_accept_reset_streams(MAX_RESETS);
    let violation = Arc::new(Violation::default());
    let handshake = builder.handshake::<_, Bytes>(Wire::watched(reader, writer, violation.clone()));
    let Ok(Ok(mut connection)) = timeout(server.header_timeout, handshake).await else { return };
    let mut streams = JoinSet::new();
    let mut idle_since = clock::now();
    // Until its first stream it rests.
    if !permit.rest(proxy.millis_at(idle_since)) {
        return;
    }
    let drained = proxy.drained();
    tokio::pin!(drained);
    let mut leaving = false;
    let end = loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, response))) => {
                    if streams.is_empty() && !permit.work() {
                        break Ending::Over;
                    }
                    streams.spawn(stream(proxy.clone(), peer, request, response));
                }
                Some(Err(error)) => break Ending::Broke(error),
                None => break Ending::Over,
            },
            // Behind the poll of the connection, by which it is found.
            code = std::future::poll_fn(|_| violation.code().map_or(Poll::Pending, Poll::Ready)) => {
                break Ending::Violated(code);
            }
            Some(_) = streams.join_next() => {
                while streams.try_join_next().is_some() {}
                if streams.is_empty() {
                    idle_since = clock::now();
                    if !permit.rest(proxy.millis_at(idle_since)) {
                        break Ending::Over;
                    }
                }
            }
            () = &mut drained, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = async { sleep_until((idle_since + server.client_idle).into()).await }, if !leaving && streams.is_empty() => {
                leaving = true;
                connection.graceful_shutdown();
            }
            // A client that takes not even the last word is not waited for.
            () = async { sleep_until((idle_since + server.client_idle + LAST_WORDS).into()).await },
                if leaving && streams.is_empty() => break Ending::Over,
        }
    };
    // A client that leaves is no news; one that breaks the rules is refused like any other.
    let (broke_the_rules, last_words) = match end {
        Ending::Over => (false, false),
        // What it broke is told to the client by the connection itself, as far as it reads.
        Ending::Broke(error) => {
            tracing::debug!(client = %peer, %error, "a connection of HTTP/2 broke");
            (!error.is_io(), true)
        }
        Ending::Violated(code) => {
            tracing::debug!(client = %peer, code = code.0, "a client broke the rules of HTTP/2");
            connection.abrupt_shutdown(code.reason());
            (true, true)
        }
    };
    if broke_the_rules {
        proxy.metrics().refused.add(BROKE_THE_RULES.token());
    }
    if last_words {
        let _ = timeout(LAST_WORDS, std::future::poll_fn(|cx| connection.poll_closed(cx))).await;
    }
    // Its streams see by this that their client is gone, and are counted and logged as ever.
    drop(connection);
    let _ = timeout(LAST_WORDS, async { while streams.join_next().await.is_some() {} }).await;
}

/// Why a connection is served no longer.
enum Ending {
    /// Nothing came any more, or it rested for long enough.
    Over,
    /// It failed.
    Broke(h2::Error),
    /// The client broke a rule that ends the connection with this code.
    Violated(Code),
}

/// One request.
async fn stream(proxy: Arc<Proxy>, peer: SocketAddr, request: Request<RecvStream>, response: SendResponse<Bytes>) {
    let sender = Arc::new(Sender::of_response(response));
    let mut heads = worker::heads();
    let _active = proxy.active();
    // On the heap from the beginning: a task is moved more than once while it is made.
    let end = Box::pin(respond(&proxy, peer, request, &sender, &mut heads)).await;
    worker::give_back_heads(heads);
    match end {
        End::Next | End::Close => {}
        // An answer that would not be one to the whole request, or none, as a direct dial would have had.
        End::Cut(code) => sender.reset(code.map_or(Code::CANCEL, |problem| problem.code())),
        // Malformed (RFC 9113 section 8.1.1).
        End::Problem(Problem::BadRequest(_)) => sender.reset(Code::PROTOCOL),
        End::Gone | End::Rerouted | End::Problem(_) | End::Upgraded(_) => sender.reset(Code::INTERNAL),
    }
}

async fn respond(
    proxy: &Proxy,
    peer: SocketAddr,
    request: Request<RecvStream>,
    sender: &Arc<Sender>,
    heads: &mut Heads,
) -> End {
    let table = proxy.table();
    let (parts, body) = request.into_parts();
    let mut raw = std::mem::take(&mut heads.client);
    let written = head::write_request(&parts, &mut raw);
    drop(parts);
    let delimiter = Delimiter::Stream { ended: body.is_end_stream() };
    let mut timer = Timer::new(clock::now() + table.server.client_idle);
    let mut holding = proxy.memory.holding(table.server.max_buffered);
    let out = &mut heads.response;
    let mut turn = Turn {
        caller: Caller { outflow: Outflow::Http2(sender), timer: &mut timer, out },
        request: &mut heads.request,
        peer,
    };
    let refused = match written {
        // Nothing is said of it: by the rules it is an error of the stream.
        Err(why) => {
            let problem = Problem::BadRequest(why);
            proxy.metrics().refused.add(problem.token());
            tracing::debug!(client = %peer, reason = problem.token(), "request refused: {why}");
            heads.client = raw;
            return End::Problem(problem);
        }
        Ok(()) => match RequestHead::read_as(&raw, delimiter) {
            Err(fault) => Err(fault.into()),
            Ok(head) if head.target().len() > table.server.max_target => Err(Problem::TargetTooLong),
            // As it came, and as it goes to the replica.
            Ok(_) if holding.set(2 * raw.capacity()) == Err(Full) => Err(Problem::NoMemory),
            Ok(head) => Ok(head),
        },
    };
    let end = match refused {
        Err(problem) => turn.turn_away(proxy, &problem, Asked::default()).await,
        Ok(head) => {
            let mut inflow = Inflow::of_request(Receiver::new(body), sender.clone());
            let mut end = turn.request(proxy, &table, &head, &mut inflow).await;
            while let End::Rerouted = end {
                let table = proxy.table();
                end = Box::pin(turn.request(proxy, &table, &head, &mut inflow)).await;
            }
            end
        }
    };
    heads.client = raw;
    end
}
