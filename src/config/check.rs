//! From a file's text to a [`Config`]: which keys there are, and what must hold between them.

use super::access_log::access_log;
use super::section::{Key, Reader, Section, kind, nearest};
use super::statuses::statuses;
use super::value::{
    address, boolean, bytes, choice, conceal, dns_server, duration, grpc_service, host_field, integer, path_prefix,
    port, probe_path, quoted, route_host, size, socket, string, time,
};
use super::{
    Config, ConfigError, Dns, Env, Family, Forwarded, Host, HostHeader, OnFailure, Probe, Protocol, Route, Server,
    Sockets, Statuses, Upstream, limits,
};
use crate::route;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The configuration of a file.
pub(super) fn text(text: &str, file: &str, env: Env<'_>) -> Result<Config, ConfigError> {
    let root = DeTable::parse(text).map_err(|error| ConfigError::one(syntax(text, file, &error)))?;
    let reader = Reader::new(file, env);
    let mut root = Section::new(&reader, String::new(), "", root.into_inner());
    let server = root.take_table("server", "[server]").unwrap_or_default();
    let dns = root.take_table("dns", "[dns]").unwrap_or_default();
    let named = root.take_table("upstream", "[upstream.db-checker]").unwrap_or_default();
    let listed = root.take_raw("route");
    root.end();

    let server = self::server(&reader, server);
    let dns = self::dns(&reader, dns);
    let whole = reader.problems();
    let upstreams = upstreams(&reader, named);
    // Routes are judged against the upstreams only if those are all there.
    let known = (reader.problems() == whole).then_some(&upstreams[..]);
    let routes = routes(&reader, listed, known);

    if variable(env, "UPSTREAM").is_some() && !reader.names_upstream() && reader.problems() == 0 {
        reader.problem(format_args!(
            "the variable UPSTREAM is set but the file, which is the whole configuration, does not use it; write \
             address = \"${{UPSTREAM}}\" in an upstream, or unset it"
        ));
    }
    reader.into_result(Config { server, dns, upstreams, routes })
}

/// The sockets of a text that may be wrong elsewhere, or everywhere.
pub(super) fn sockets(text: &str, env: Env<'_>) -> Sockets {
    let server = server_of(text, &Reader::new("", env));
    Sockets { listen: server.listen, admin: server.admin, reuse_port: server.reuse_port }
}

fn server_of(text: &str, reader: &Reader<'_>) -> Server {
    let (root, _) = DeTable::parse_recoverable(text);
    let table = Section::new(reader, String::new(), "", root.into_inner()).take_table("server", "[server]");
    server(reader, table.unwrap_or_default())
}

/// Where there is no file, the variables that the shipped one names mean what they mean in it.
pub(super) const NO_FILE: &str = r#"
[server]
admin = "${ADMIN:-127.0.0.1:9180}"
reuse_port = "${REUSE_PORT:-false}"
drain = "${DRAIN:-9s}"
"#;

/// The configuration without a file: one upstream, everything else by default but for [`NO_FILE`].
pub(super) fn environment(env: Env<'_>) -> Result<Config, ConfigError> {
    let Some(value) = variable(env, "UPSTREAM") else {
        return Err(ConfigError::one(
            "there is no proxy.toml here and the variable UPSTREAM is not set; set UPSTREAM=db-checker:8080 (the app's \
             name on the network and its port), or name a file by --config"
                .into(),
        ));
    };
    let reader = Reader::new("the environment", env);
    let server = server_of(NO_FILE, &reader);
    let upstreams = match address(&value) {
        Ok((host, port)) => vec![Arc::new(Upstream::new(&host.to_string(), host, port))],
        Err(problem) => {
            reader.foreign_problem(format!("the variable UPSTREAM {}", conceal(&problem)));
            Vec::new()
        }
    };
    reader.into_result(Config { server, dns: Dns::default(), upstreams, routes: vec![EVERYTHING] })
}

/// The route of an only upstream.
const EVERYTHING: Route = Route { upstream: 0, host: None, path_prefix: None, strip_prefix: false };

/// A variable that says something: Compose sets those it does not know to nothing.
fn variable(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

fn syntax(text: &str, file: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    // The parser's messages may have several lines; a problem is one.
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let wrong = quoted(text.lines().nth(line - 1).unwrap_or_default());
    format!("{file}: line {line}, column {column}: {message}: {wrong}; write it as TOML, where text stands in quotes")
}

fn server(reader: &Reader<'_>, table: DeTable<'_>) -> Server {
    let default = Server::default();
    let mut s = Section::new(reader, String::new(), "server.", table);
    let before = reader.problems();
    let set = s.take("listen", string(socket));
    let mut listen = set.unwrap_or(default.listen);
    let admin = |text: &str| match text {
        "" | "off" => Ok(None),
        text => socket(text).map(Some),
    };
    let admin = s.take("admin", string(admin)).unwrap_or(default.admin);
    let reuse_port = s.take("reuse_port", boolean).unwrap_or(default.reuse_port);
    let threads = s.take("threads", integer(limits::THREADS)).map_or(default.threads, count);
    let drain = s.take("drain", duration(limits::PERIOD)).unwrap_or(default.drain);
    let header_timeout = s.take("header_timeout", duration(limits::TIMEOUT)).unwrap_or(default.header_timeout);
    let max_header = s.take("max_header", size(limits::HEADER)).map_or(default.max_header, count);
    let max_target = s.take("max_target", size(limits::TARGET)).map(count);
    let max_buffered = s.take("max_buffered", size(limits::BUFFERED)).map_or(default.max_buffered, count);
    let body_idle = s.take("body_idle", duration(limits::TIMEOUT)).unwrap_or(default.body_idle);
    let client_idle = s.take("client_idle", duration(limits::TIMEOUT)).unwrap_or(default.client_idle);
    let max_connections = s.take("max_connections", integer(limits::MANY)).map_or(default.max_connections, count);
    let log_query = s.take("log_query", boolean).unwrap_or(default.log_query);
    let access_log = s.take("access_log", string(access_log)).unwrap_or(default.access_log);

    if let Some(value) = variable(reader.env, "PORT") {
        match port(&value) {
            Ok(port) => listen.set_port(port),
            Err(problem) => reader.foreign_problem(format!(
                "the variable PORT {}, or unset it: then server.listen rules",
                conceal(&problem)
            )),
        }
    }
    if reader.problems() == before {
        if let Some(admin) = admin
            && admin.port() == listen.port()
            && listen.port() != 0
            && (admin.ip() == listen.ip() || admin.ip().is_unspecified() || listen.ip().is_unspecified())
        {
            s.refuse::<()>(
                "admin",
                format_args!(
                    "({admin}) takes the port where clients connect ({listen}; the variable PORT overrides that of \
                     server.listen); give it another, or \"\" for none"
                ),
            );
        }
        if let Some(target) = max_target
            && target > max_header
        {
            s.refuse::<()>(
                "max_target",
                format_args!(
                    "({}) must not be longer than server.max_header ({}), of which it is a part; lower one or raise \
                     the other",
                    bytes(target as u64),
                    bytes(max_header as u64)
                ),
            );
        }
    }
    s.end();
    Server {
        listen,
        listen_is_set: set.is_some(),
        admin,
        threads,
        drain,
        header_timeout,
        max_header,
        max_target: max_target.unwrap_or(default.max_target.min(max_header)),
        max_buffered,
        body_idle,
        client_idle,
        max_connections,
        reuse_port,
        log_query,
        access_log,
    }
}

fn dns(reader: &Reader<'_>, table: DeTable<'_>) -> Dns {
    let default = Dns::default();
    let family = choice(&[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6), ("any", Family::Any)]);
    let mut s = Section::new(reader, String::new(), "dns.", table);
    let dns = Dns {
        server: s.take("server", string(dns_server)),
        interval: s.take("interval", duration(limits::INTERVAL)).unwrap_or(default.interval),
        timeout: s.take("timeout", duration(limits::TIMEOUT)).unwrap_or(default.timeout),
        family: s.take("family", family).unwrap_or(default.family),
        hold: s.take("hold", duration(limits::PERIOD)).unwrap_or(default.hold),
    };
    s.end();
    dns
}

fn upstreams(reader: &Reader<'_>, named: DeTable<'_>) -> Vec<Arc<Upstream>> {
    if named.is_empty() && reader.problems() == 0 {
        reader.problem(
            "there is no upstream; write\n    [upstream.db-checker]\n    address = \"db-checker:8080\"\nwith the app's \
             name on the network and its port",
        );
    }
    let mut named: Vec<_> = named.into_iter().collect();
    // The map is sorted by name; people list what matters first.
    named.sort_by_key(|(name, _)| name.span().start);
    named.into_iter().filter_map(|(name, value)| upstream(reader, name.get_ref(), value)).map(Arc::new).collect()
}

fn upstream(reader: &Reader<'_>, name: &str, value: Spanned<DeValue<'_>>) -> Option<Upstream> {
    let DeValue::Table(table) = value.into_inner() else {
        reader.problem(format_args!(
            "upstream.{} belongs in a table with the upstream's name, such as [upstream.db-checker]",
            Key(name)
        ));
        return None;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > limits::NAME || !name.bytes().all(plain) {
        reader.problem(format_args!(
            "upstream {}: a name is made of letters, digits, -, _ and ., {} at most; rename it",
            quoted(name),
            limits::NAME
        ));
    }
    let place = format!("upstream {}: ", quoted(name));
    let mut s = Section::new(reader, place.clone(), "", table);
    let missing = !s.has("address");
    let address = s.take("address", string(address));
    if missing {
        s.refuse::<()>(
            "address",
            "is missing; write address = \"db-checker:8080\", the app's name on the network and its port",
        );
    }
    // Without an address there will be no `Config`; the rest is read for its problems.
    let (host, port) = address.unwrap_or((Host::Name(String::new()), 0));
    let default = Upstream::new(name, host, port);

    let on_failure = choice(&[("respond", OnFailure::Respond), ("close", OnFailure::Close)]);
    let protocol = choice(&[("http1", Protocol::Http1), ("h2c", Protocol::H2c)]);
    let forwarded = choice(&[("off", Forwarded::Off), ("append", Forwarded::Append)]);
    let own = default.host.to_string();
    let header = |text: &str| {
        let host = match text {
            "pass" => return Ok(HostHeader::Pass),
            "upstream" => own.clone(),
            // As a literal it would be every request's host.
            word if ["pass", "upstream"].iter().any(|known| word.eq_ignore_ascii_case(known)) => {
                return Err(format!("must be in lower case; write {}", quoted(&word.to_ascii_lowercase())));
            }
            literal => host_field(literal).map_err(|problem| format!("{problem}; or \"pass\", or \"upstream\""))?,
        };
        host.try_into().map(HostHeader::Replace).map_err(|_| "cannot stand in a header".to_owned())
    };
    let mut upstream = Upstream {
        protocol: s.take("protocol", protocol).unwrap_or(default.protocol),
        on_failure: s.take("on_failure", on_failure).unwrap_or(default.on_failure),
        wait: s.take("wait", duration(limits::PERIOD)).unwrap_or(default.wait),
        max_waiting: s.take("max_waiting", integer(limits::MANY)).map_or(default.max_waiting, count),
        connect_timeout: s.take("connect_timeout", duration(limits::TIMEOUT)).unwrap_or(default.connect_timeout),
        response_timeout: s.take("response_timeout", duration(limits::TIMEOUT)).unwrap_or(default.response_timeout),
        retries: s.take("retries", integer(limits::RETRIES)).map_or(default.retries, count),
        max_in_flight: s.take("max_in_flight", integer(limits::MANY)).map_or(default.max_in_flight, count),
        idle_timeout: s.take("idle_timeout", duration(limits::TIMEOUT)).unwrap_or(default.idle_timeout),
        max_idle: s.take("max_idle", integer(limits::MANY)).map_or(default.max_idle, count),
        host_header: s.take("host", string(header)).unwrap_or(default.host_header),
        forwarded: s.take("forwarded", forwarded).unwrap_or(default.forwarded),
        ..default
    };
    // What requests show the app as `Host` is what it must take from probes as well.
    if let HostHeader::Replace(host) = &upstream.host_header
        && let Ok(host) = host.to_str()
    {
        upstream.probe.host = host.to_owned();
    }
    upstream.probe.protocol = upstream.protocol;
    let table = s.take_table("probe", "[upstream.NAME.probe]").unwrap_or_default();
    upstream.probe = probe(Section::new(reader, place, "probe.", table), reader, upstream.probe);
    s.end();
    Some(upstream)
}

fn probe(mut s: Section<'_, '_>, reader: &Reader<'_>, default: Probe) -> Probe {
    let before = reader.problems();
    let path = s.take("path", string(probe_path));
    let grpc = s.take("grpc", string(grpc_service));
    let healthy = s.take("healthy", statuses);
    let host = s.take("host", string(host_field));
    let interval = s.take("interval", duration(limits::INTERVAL)).unwrap_or(default.interval);
    let timeout = s.take("timeout", duration(limits::TIMEOUT));
    let rise = s.take("rise", integer(limits::PROBES)).map_or(default.rise, count);
    let fall = s.take("fall", integer(limits::PROBES)).map_or(default.fall, count);
    if reader.problems() == before {
        if let Some(timeout) = timeout
            && timeout > interval
        {
            let problem = format!(
                "({}) must not be longer than probe.interval ({}); lower one or raise the other",
                time(timeout),
                time(interval)
            );
            s.refuse::<()>("timeout", problem);
        }
        if grpc.is_some() && path.is_some() {
            s.refuse::<()>("grpc", "and probe.path are two kinds of probes; leave one of them out");
        }
        if grpc.is_some() && default.protocol == Protocol::Http1 {
            s.refuse::<()>("grpc", "needs an upstream that speaks HTTP/2; add protocol = \"h2c\" to the upstream");
        }
        if grpc.is_some() && healthy.is_some() {
            s.refuse::<()>("healthy", "says nothing beside probe.grpc, whose answer is SERVING or not; leave it out");
        }
        for (key, idle) in [("healthy", healthy.is_some()), ("host", host.is_some())] {
            if path.is_none() && grpc.is_none() && idle {
                s.refuse::<()>(
                    key,
                    "says nothing without probe.path, as the probe is then a TCP connect; add path, or leave it out",
                );
            }
        }
    }
    s.end();
    let healthy = match healthy {
        Some(healthy) => healthy,
        None if path.is_some() => Statuses::success(),
        None => Statuses::default(),
    };
    Probe {
        path,
        grpc,
        protocol: default.protocol,
        healthy,
        host: host.unwrap_or(default.host),
        interval,
        timeout: timeout.unwrap_or(default.timeout.min(interval)),
        rise,
        fall,
    }
}

/// The routes; `upstreams` is `None` where some of them are broken, and then nothing is said about what they miss.
fn routes(reader: &Reader<'_>, listed: Option<DeValue<'_>>, upstreams: Option<&[Arc<Upstream>]>) -> Vec<Route> {
    let listed = match listed {
        None => Vec::new(),
        Some(DeValue::Array(list)) => list.into_iter().map(Spanned::into_inner).collect(),
        Some(other) => {
            reader.problem(format_args!("route is {}; write it in double brackets: [[route]]", kind(&other)));
            return Vec::new();
        }
    };
    if listed.is_empty() {
        if let Some([first, _, ..]) = upstreams {
            let names: Vec<&str> = upstreams.into_iter().flatten().map(|upstream| &*upstream.name).collect();
            reader.problem(format_args!(
                "there are {} upstreams ({}) but no [[route]] to say who gets what; write one for each, such as\n    \
                 [[route]]\n    upstream = \"{}\"\n    path_prefix = \"/{}\"\n    strip_prefix = true\nthe first that \
                 matches wins, and one without host and path_prefix, at the end, matches everything",
                names.len(),
                names.join(", "),
                first.name,
                first.name,
            ));
        }
        return vec![EVERYTHING];
    }
    let before = reader.problems();
    let routes: Vec<Route> =
        listed.into_iter().zip(1..).filter_map(|(value, n)| route(reader, n, value, upstreams)).collect();
    let Some(upstreams) = upstreams.filter(|_| reader.problems() == before) else { return routes };
    for (later, route) in routes.iter().enumerate() {
        if let Some(earlier) = routes[..later].iter().position(|earlier| route::covers(earlier, route)) {
            let (later, earlier) = (later + 1, earlier + 1);
            reader.problem(format_args!(
                "route {later}: can never match, as route {earlier} before it takes every such request; put it before \
                 route {earlier}, or remove it"
            ));
        }
    }
    for (index, upstream) in upstreams.iter().enumerate() {
        if routes.iter().all(|route| route.upstream != index) {
            reader.problem(format_args!(
                "upstream \"{0}\": no [[route]] leads to it; write one with upstream = \"{0}\", or remove \
                 [upstream.{0}]",
                upstream.name
            ));
        }
    }
    routes
}

fn route(reader: &Reader<'_>, n: usize, value: DeValue<'_>, upstreams: Option<&[Arc<Upstream>]>) -> Option<Route> {
    let place = format!("route {n}: ");
    let DeValue::Table(table) = value else {
        reader.problem(format_args!("{place}is {}; write each route as [[route]] and its keys", kind(&value)));
        return None;
    };
    let mut s = Section::new(reader, place, "", table);
    let before = reader.problems();
    let missing = !s.has("upstream");
    let index = |name: &str| {
        let Some(upstreams) = upstreams else { return Ok(0) };
        let names: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
        names.iter().position(|known| *known == name).ok_or_else(|| {
            let hint = nearest(name, &names).map_or(String::new(), |near| format!("did you mean {near}? "));
            format!("is not an upstream of this file; {hint}There are {}", names.join(", "))
        })
    };
    let upstream = s.take("upstream", string(index));
    if missing {
        s.refuse::<()>("upstream", "is missing; write upstream = \"NAME\" of an [upstream.NAME]");
    }
    let host = s.take("host", string(route_host));
    let prefix = s.take("path_prefix", string(path_prefix));
    let strip_prefix = s.take("strip_prefix", boolean).unwrap_or(false);
    if strip_prefix && prefix.is_none() && reader.problems() == before {
        s.refuse::<()>("strip_prefix", "(true) has nothing to take off; add path_prefix, or leave it out");
    }
    s.end();
    let path_prefix = prefix.flatten();
    Some(Route { upstream: upstream?, host, strip_prefix: strip_prefix && path_prefix.is_some(), path_prefix })
}

/// A checked number in the type that wants it: every limit is far below every type's.
fn count<T: TryFrom<u64>>(number: u64) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(number).expect("limits.rs keeps numbers within their types")
}
