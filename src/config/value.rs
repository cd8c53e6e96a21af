//! One value: its variables filled in, and turned into the type that its key wants.
//!
//! What these functions say against a value is put behind the key and the value: `server.drain ("25") has no unit; …`.
//! Where the value comes from the environment, the variable stands in its place (`"${DRAIN}"`), and so does `…` for each
//! part of it: what was put in the wrong place may be a password, and these texts go to the log and to `/status`. So a
//! text never holds a part of its value but as an [`excerpt`], and whoever shows it calls [`reveal`] or [`conceal`].

use super::expand::expand;
use super::section::kind;
use super::{Env, Host, limits};
use bytesize::ByteSize;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// A value of the file with its variables filled in.
pub(super) enum Value {
    /// A string; `raw` is how the file has it, if that is something else.
    Text {
        text: String,
        raw: Option<String>,
    },
    Integer(i64),
    Bool(bool),
    List(Vec<Value>),
    /// Something that no key wants: its kind, and how to show it.
    Other(&'static str, String),
}

impl Value {
    /// Fills in the variables, telling `named` of each.
    pub(super) fn new(raw: &DeValue<'_>, env: Env<'_>, named: &mut dyn FnMut(&str)) -> Result<Value, String> {
        Ok(match raw {
            DeValue::String(raw) => {
                let text = expand(raw, env, named).map_err(|problem| format!("({}) {problem}", quoted(raw)))?;
                let changed = (text != *raw).then(|| raw.to_string());
                Value::Text { text: text.into_owned(), raw: changed }
            }
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => return Err(format!("({}) is out of all bounds", plain(integer.as_str()))),
            },
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Array(list) => {
                let values = list.iter().map(|value| Value::new(value.get_ref(), env, named));
                Value::List(values.collect::<Result<_, _>>()?)
            }
            DeValue::Float(float) => Value::Other("a fraction", plain(float.as_str())),
            other => Value::Other(kind(other), kind(other).into()),
        })
    }

    /// `problem`, which is one of this value, as it may be shown.
    pub(super) fn show(&self, problem: &str) -> String {
        if self.is_from_outside() { conceal(problem) } else { reveal(problem) }
    }

    fn is_from_outside(&self) -> bool {
        match self {
            Value::Text { raw, .. } => raw.is_some(),
            Value::List(values) => values.iter().any(Value::is_from_outside),
            Value::Integer(_) | Value::Bool(_) | Value::Other(..) => false,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Text { .. } => "a string",
            Value::Integer(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Other(kind, _) => kind,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text { text, raw: None } => f.write_str(&quoted(text)),
            Value::Text { raw: Some(raw), .. } => f.write_str(&quoted(raw)),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::List(_) => f.write_str(self.kind()),
            Value::Other(_, shown) => f.write_str(shown),
        }
    }
}

/// `text` in quotes for a message: one line, not endless, no control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// What an excerpt begins and ends with: control characters, which [`quoted`] escapes, so that no value holds them.
const EXCERPT: [char; 2] = ['\u{2}', '\u{3}'];

/// A part of a value within what is said against it.
pub(super) fn excerpt(text: impl fmt::Display) -> String {
    let plain: String = text.to_string().chars().filter(|c| !c.is_control()).collect();
    format!("{}{plain}{}", EXCERPT[0], EXCERPT[1])
}

/// `problem` with its excerpts.
pub(super) fn reveal(problem: &str) -> String {
    problem.replace(EXCERPT, "")
}

/// `problem` without them.
pub(super) fn conceal(problem: &str) -> String {
    let mut parts = problem.split(EXCERPT);
    // Every other part is an excerpt.
    let mut shown = parts.next().unwrap_or_default().to_owned();
    while parts.next().is_some() {
        shown.push('…');
        shown.push_str(parts.next().unwrap_or_default());
    }
    shown
}

/// A number for a message. The reader of TOML lets control characters stand behind one.
fn plain(number: &str) -> String {
    cut(number).escape_debug().to_string()
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Any string.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text { text, .. } => Ok(text),
        other => Err(format!("is {} where a string belongs; write it in quotes", other.kind())),
    }
}

/// A string, given on to `parse`.
pub(super) fn string<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Value) -> Result<T, String> {
    move |value| parse(text(value)?)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| match value {
        Value::Text { text, .. } if let Some((_, choice)) = choices.iter().find(|(word, _)| word == text) => {
            Ok(*choice)
        }
        _ => {
            let words: Vec<String> = choices.iter().map(|(word, _)| quoted(word)).collect();
            Err(format!("is none of the choices; write {}", words.join(" or ")))
        }
    }
}

/// `true` or `false`; from the environment it comes as a string.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Text { text, raw: Some(_) } if let Ok(value) = text.parse() => Ok(value),
        _ => Err("must be true or false, without quotes".into()),
    }
}

/// A whole number; from the environment it comes as a string.
pub(super) fn integer(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| {
        let number = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text { text, raw: Some(_) } if text.parse::<i64>().is_ok() => text.parse().ok(),
            Value::Text { text, raw: None } if text.parse::<i64>().is_ok() => {
                return Err(format!("is a string where a number belongs; write {text} without quotes"));
            }
            other => return Err(format!("is {} where a whole number belongs", other.kind())),
        };
        let outside = || format!("is out of bounds; write a number from {} to {}", range.start(), range.end());
        number.filter(|number| range.contains(number)).ok_or_else(outside)
    }
}

/// A number with a unit of time.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let text = match value {
            Value::Integer(number) => return Err(format!("has no unit; write \"{number}s\" or \"{number}ms\"")),
            other => text(other)?,
        };
        let duration = match humantime::parse_duration(text) {
            Ok(duration) => duration,
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(format!("has no unit; write \"{0}s\" or \"{0}ms\"", excerpt(cut(text))));
            }
            Err(_) => {
                return Err("is not a duration; write a number and a unit: \"500ms\", \"2s\", \"1m\", \"1h\"".into());
            }
        };
        let outside = || format!("is out of bounds; write from {} to {}", time(*range.start()), time(*range.end()));
        if range.contains(&duration) { Ok(duration) } else { Err(outside()) }
    }
}

/// A duration as the file has it.
pub(super) fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A number of bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| {
        let text = match value {
            Value::Integer(number) => return Err(format!("has no unit; write \"{number}B\", or \"64KiB\"")),
            other => text(other)?,
        };
        let Ok(ByteSize(size)) = text.parse() else {
            return Err("is not a size; write a number and a unit: \"512B\", \"64KiB\", \"1MiB\"".into());
        };
        let outside = || format!("is out of bounds; write from {} to {}", bytes(*range.start()), bytes(*range.end()));
        if range.contains(&size) { Ok(size) } else { Err(outside()) }
    }
}

/// A size as the file has it.
pub(super) fn bytes(size: u64) -> String {
    match size {
        0 => "0B".into(),
        size if size % (1 << 20) == 0 => format!("{}MiB", size >> 20),
        size if size % (1 << 10) == 0 => format!("{}KiB", size >> 10),
        size => format!("{size}B"),
    }
}

/// Where to listen. Port 0 takes a free one.
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.strip_prefix(':') {
        Some(port) if self::port(port).is_ok() => {
            format!("has no address; write \"0.0.0.0:{}\" for all", excerpt(port))
        }
        _ if text.parse::<IpAddr>().is_ok() => "has no port; write \"0.0.0.0:80\" or \"[::]:80\"".into(),
        _ if self::port(text).is_ok() => format!("has no address; write \"0.0.0.0:{}\" for all", excerpt(text)),
        _ => "is not an IP address and a port; write \"0.0.0.0:80\" or \"[::]:80\"".into(),
    })
}

/// A DNS server; its port may be left out.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const DNS: u16 = 53;
    match text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS)).or_else(|_| text.parse()) {
        Ok(server) if server.port() > 0 => Ok(server),
        _ => Err("is not an IP address and a port; write \"127.0.0.11:53\", or leave it out for resolv.conf".into()),
    }
}

/// A port to be dialled or listened at.
pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err("is not a port; write a number from 1 to 65535".into()),
    }
}

/// An upstream's address: `name:port`, `ipv4:port` or `[ipv6]:port`.
pub(super) fn address(text: &str) -> Result<(Host, u16), String> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let port = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) { "" } else { ":80" };
        let host = format!("{host}{port}");
        return Err(format!(
            "has a scheme; replicas are spoken to in plain HTTP, so write only {}",
            excerpt(quoted(&host))
        ));
    }
    if let Some(at) = text.find(['/', '?', '#']) {
        let host = excerpt(quoted(&text[..at]));
        return Err(format!("has a path; write only {host} (what probes ask for is probe.path)"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("is an IPv6 address without brackets; write \"[ADDRESS]:PORT\"".into());
    }
    let (host, port) = host_and_port(text)?;
    let Some(port) = port else {
        let host = excerpt(host);
        return Err(format!(
            "has no port; write \"{host}:PORT\" with the port that the app's image EXPOSEs; where it EXPOSEs none, \
             Dokku's default is 5000: \"{host}:5000\""
        ));
    };
    match host {
        Host::Address(ip) if ip.is_unspecified() || ip.is_multicast() => {
            Err("is no address that a replica can have; write the app's name on the network".into())
        }
        host => Ok((host, port)),
    }
}

/// A host, and the port behind it if there is one.
fn host_and_port(text: &str) -> Result<(Host, Option<u16>), String> {
    let end = match text.find(']') {
        Some(at) if text.starts_with('[') => at + 1,
        _ => text.find(':').unwrap_or(text.len()),
    };
    let host = host(&text[..end])?;
    let port = match &text[end..] {
        "" => None,
        rest => {
            let text = rest.strip_prefix(':').unwrap_or(rest);
            Some(
                port(text)
                    .map_err(|problem| format!("has {} behind the name, which {problem}", excerpt(quoted(text))))?,
            )
        }
    };
    Ok((host, port))
}

/// A name or an address without a port; IPv6 in brackets.
fn host(text: &str) -> Result<Host, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let address = rest.strip_suffix(']').and_then(|inner| inner.parse().ok());
        return address
            .map(|address| Host::Address(IpAddr::V6(address)))
            .ok_or_else(|| "is not an IPv6 address in brackets; write \"[fd00::1]\"".into());
    }
    match text.parse() {
        Ok(address) => Ok(Host::Address(IpAddr::V4(address))),
        Err(_) => dns_name(text).map(Host::Name),
    }
}

/// A name as DNS has it (RFC 1035, section 2.3.4), with the underscores of Docker's names: folded to lower case,
/// without the trailing dot.
fn dns_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return Err("has no name; write one, such as \"db-checker\"".into());
    }
    if !name.is_ascii() {
        return Err("has letters that DNS does not; write the name in Punycode (xn--…)".into());
    }
    let strange = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if let Some(c) = name.chars().find(|c| strange(*c)) {
        let c = excerpt(format_args!("{c:?}"));
        return Err(format!("has {c} in its name; names have letters, digits, -, _ and ."));
    }
    let label = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-');
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("is not a DNS name: between its dots are 1 to 63 characters, not - first, 253 in all".into());
    }
    // Not by the last label alone: Dokku's containers are called `app.web.1`.
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err("looks like an IPv4 address but is none".into());
    }
    Ok(name)
}

/// The value of a `Host` field: a host, perhaps with a port. As it is written, but for what no server would take.
pub(super) fn host_field(text: &str) -> Result<String, String> {
    host_and_port(text)?;
    Ok(text.to_owned())
}

/// A route's host: a name or an address, IPv6 with or without brackets.
pub(super) fn route_host(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err("has a *, and there are no patterns; leave host out to match any, or write a route for each".into());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(Host::Address(address.into()).to_string());
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && self::port(port).is_ok()
    {
        return Err(format!("has a port, and ports are ignored; write {}", excerpt(quoted(host))));
    }
    host(text).map(|host| host.to_string())
}

/// A probe's path, perhaps with a query.
pub(super) fn probe_path(text: &str) -> Result<String, String> {
    path(text)?;
    Ok(text.to_owned())
}

/// The service that a gRPC probe asks about; empty: the server as a whole.
pub(super) fn grpc_service(text: &str) -> Result<String, String> {
    if text.len() > limits::NAME {
        return Err(format!(
            "is longer than {} bytes; write the service's full name, or \"\" for the server",
            limits::NAME
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/')) {
        return Err("is no service's full name, as in \"shop.Orders\"; or \"\" for the server as a whole".into());
    }
    Ok(text.to_owned())
}

/// A route's prefix: without slashes at its end; `None` for `/`, which is every path's.
pub(super) fn path_prefix(text: &str) -> Result<Option<String>, String> {
    path(text)?;
    if text.contains('?') {
        return Err("has a ?, and a query is no part of the path; leave it out".into());
    }
    let prefix = text.strip_suffix('/').unwrap_or(text);
    if prefix.is_empty() {
        return Ok(None);
    }
    let segments = || prefix[1..].split('/');
    if segments().any(str::is_empty) {
        return Err("has an empty segment (//), which no client means; write one slash".into());
    }
    if segments().any(|segment| segment == "." || segment == "..") {
        return Err(
            "has a . or .. segment, which clients resolve before they ask; write the path that they ask for".into()
        );
    }
    Ok(Some(prefix.to_owned()))
}

fn path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("does not start with a slash; write {}", excerpt(quoted(&format!("/{text}")))));
    }
    if text.len() > limits::TEXT {
        return Err(format!("is over {} bytes", limits::TEXT));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        Some(c) => {
            let c = excerpt(format_args!("{c:?}"));
            Err(format!("has {c}, which a request's target cannot have; write it percent-encoded"))
        }
        None => Ok(()),
    }
}
