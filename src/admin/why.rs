//! The address at which is told why a request went where it went: `/why/ID` or `/why?id=ID`, and `/why` for the last one.

use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const PATH: &str = "/why";

/// Whether this is such an address.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The address for the request that is called so, or for the last one.
pub fn address(id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{PATH}/{}", utf8_percent_encode(id, NON_ALPHANUMERIC)),
        None => PATH.to_owned(),
    }
}

/// The same, as the page has it: relative, for whoever reads it through another address.
pub(super) fn link(id: &str) -> String {
    address(Some(id)).split_off(1)
}

/// Who is meant; `None`: the last one.
pub(super) fn asked(uri: &Uri) -> Option<String> {
    let of_path = uri.path().strip_prefix(PATH)?.strip_prefix('/').map(str::to_owned);
    // A form writes spaces as this.
    let of_form = || Some(uri.query()?.strip_prefix("id=")?.replace('+', " "));
    let id = of_path.or_else(of_form).filter(|id| !id.is_empty())?;
    Some(percent_decode_str(id.trim()).decode_utf8_lossy().into_owned())
}

/// What is said where nothing is known.
pub(super) fn unknown(id: Option<&str>) -> String {
    match id {
        Some(id) => format!(
            "{id:?} is the name of none of the last thousand requests, nor of one that failed in the last hour. A request \
             is found by its X-Request-Id, its traceparent, the trace in that, or the id in the log's line\n"
        ),
        None => "no request has ended yet\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_only_begins_like_it_is_another() {
        assert!(is_path("/why") && is_path("/why/") && is_path("/why/7"));
        assert!(!is_path("/whyever") && !is_path("/wh") && !is_path("/a/why"));
    }

    #[test]
    fn any_name_survives_its_address() {
        for name in ["3fa2c1d0-0-15", "a/b?c=d e%20f", "ü", "last"] {
            assert_eq!(asked(&address(Some(name)).parse().unwrap()).as_deref(), Some(name));
        }
        assert_eq!(asked(&address(None).parse().unwrap()), None);
        assert_eq!(asked(&"/why/".parse().unwrap()), None);
        assert_eq!(asked(&"/why?id=".parse().unwrap()), None);
        assert_eq!(asked(&"/why?id=a+b%2F".parse().unwrap()).as_deref(), Some("a b/"));
    }
}
