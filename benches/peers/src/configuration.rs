//! What each contender is told: three upstreams, keep-alive on both sides, least connections, no access log; health
//! checks each second, ejection of what fails, and retries of what may be sent twice, as far as the peer has them. Each
//! choice is one that the peer's own documentation makes or recommends; the comments say which.
//!
//! All have the same times: a second to connect, for a check and between two of them, sixty for a response. All check
//! [`CHECK`], as a maintainer would whose app has such a path, so that a replica that fails its requests is found by
//! its requests.

use crate::peer::Upstream;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// The path of the health checks.
pub const CHECK: &str = "/ping";

/// As shipped: metrics, health checks, retries, ejection, everything on.
pub fn evenkeel(listen: SocketAddr, admin: SocketAddr, to: &Upstream, threads: usize) -> String {
    let (dns, port) = (to.dns, to.addresses[0].port());
    let probe = if to.ours { format!("\n[upstream.app.probe]\npath = \"{CHECK}\"\n") } else { String::new() };
    let limits = to.limits.map_or(String::new(), |limits| {
        format!("max_in_flight = {}\nmax_waiting = {}\nwait = \"30s\"\n", limits.in_flight, limits.waiting)
    });
    format!(
        "[server]\nlisten = \"{listen}\"\nadmin = \"{admin}\"\nthreads = {threads}\n\n[dns]\nserver = \"{dns}\"\n\n\
         [upstream.app]\naddress = \"app.internal:{port}\"\n{limits}{probe}"
    )
}

/// HAProxy 2.6, configuration manual: `observe layer7` with `error-limit` and `on-error mark-down` (5.2) is its passive
/// check; 50 errors in a row is the limit of its own tutorial on health checks.
/// `retry-on` is off by default; its section (4.2) tells how to confine it to what may run twice.
pub fn haproxy(listen: SocketAddr, to: &Upstream, threads: usize) -> String {
    let check = if to.ours { format!("  option httpchk GET {CHECK}\n") } else { String::new() };
    let limit = to.limits.map_or(String::new(), |limits| format!(" maxconn {}", limits.in_flight));
    let mut text = format!(
        "global
  nbthread {threads}
  maxconn 12000
  no strict-limits
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout queue 30s
  timeout check 1s
  http-reuse always
  option redispatch 1
  retries 2
  retry-on conn-failure empty-response
frontend clients
  bind {listen}
  default_backend app
backend app
  balance leastconn
  http-request disable-l7-retry unless METH_GET
{check}  default-server check inter 1s fall 2 rise 2 observe layer7 error-limit 50 on-error mark-down{limit}
"
    );
    for (index, address) in to.addresses.iter().enumerate() {
        let _ = writeln!(text, "  server s{index} {address}");
    }
    text
}

/// nginx, ngx_http_upstream_module: `max_fails` within `fail_timeout` are its passive check, and the default of one is
/// raised, since one is also what a single request that breaks its handler gives; active checks are in the paid edition.
/// ngx_http_proxy_module: only what `proxy_next_upstream` names counts as a failure, and without `non_idempotent` it
/// sends no POST twice. Buffers hold the largest body measured, so that nothing goes by way of a file.
pub fn nginx(listen: SocketAddr, to: &Upstream, threads: usize, folder: &Path, by_time: bool) -> String {
    let server = |address: &SocketAddr| format!(" server {address} max_fails=10 fail_timeout=5s;");
    let servers: String = to.addresses.iter().map(server).collect();
    let folder = folder.display();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    // ngx_http_upstream_least_time_module: `header` is the time to the response's head, which is what is measured here;
    // `inflight` counts requests that have no answer yet, too, so that a replica that got slow is known before it answers.
    let method = if by_time { "least_time header inflight" } else { "least_conn" };
    format!(
        "{user} worker_processes {threads}; daemon off; pid {folder}/pid; error_log /dev/null crit;
worker_rlimit_nofile 32768;
events {{ worker_connections 12288; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_buffers 16 8k; proxy_max_temp_file_size 0;
  upstream app {{ zone app 128k; {method};{servers} keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {listen} reuseport backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
      proxy_connect_timeout 1s; proxy_read_timeout 60s;
      proxy_next_upstream error timeout http_500 http_502 http_503; proxy_next_upstream_tries 3;
    }}
  }}
}}
"
    )
}

/// Envoy, config.cluster.v3.OutlierDetection: five failures in a row eject, as by default; the default times (10 s
/// between sweeps, 30 s outside) are shortened to ours, and the default 10 % of the pool, which is one host of three,
/// raised, since its own advice for small pools is to do so. Retries as its documentation of
/// `retry_host_predicate` has them, elsewhere than before, and a reset is retried for GET alone; the default of three
/// retries at once (circuit breakers) is meant to be raised. The default draws two replicas and may draw the same one
/// twice, so that one of three that is slow would get a ninth at least: FULL_SCAN looks at all.
pub fn envoy(listen: SocketAddr, to: &Upstream) -> String {
    let check =
        if to.ours { format!("http_health_check: {{path: {CHECK}}}") } else { "tcp_health_check: {}".to_owned() };
    let (requests, pending) =
        to.limits.map_or((8192, 8192), |limits| (limits.in_flight * to.addresses.len(), limits.waiting));
    let retry = |on: &str| {
        format!(
            "retry_policy: {{retry_on: \"{on}\", num_retries: 2, host_selection_retry_max_attempts: 3, \
             retry_host_predicate: [{{name: envoy.retry_host_predicates.previous_hosts, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}}}]}}"
        )
    };
    let (safe, other) = (retry("connect-failure,refused-stream,reset"), retry("connect-failure,refused-stream"));
    let mut text = format!(
        r#"static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              routes:
              - match: {{prefix: "/", headers: [{{name: ":method", string_match: {{exact: GET}}}}]}}
                route: {{cluster: app, timeout: 60s, {safe}}}
              - match: {{prefix: "/"}}
                route: {{cluster: app, timeout: 60s, {other}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.least_request
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
            selection_method: FULL_SCAN
    health_checks:
    - {{timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, {check}}}
    outlier_detection: {{consecutive_5xx: 5, interval: 1s, base_ejection_time: 5s, max_ejection_percent: 67}}
    circuit_breakers:
      thresholds:
      - {{max_connections: {requests}, max_pending_requests: {pending}, max_requests: {all}, max_retries: 1024}}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
"#,
        ip = listen.ip(),
        port = listen.port(),
        all = requests + pending,
    );
    for address in &to.addresses {
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            text,
            "        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}"
        );
    }
    text
}

/// Caddy, documentation of `reverse_proxy`: passive checks are on once `fail_duration` is set; the default of one
/// failure is raised for the same reason as nginx's. What it retries is GET alone, as by default.
pub fn caddy(listen: SocketAddr, to: &Upstream) -> String {
    let replicas: String = to.addresses.iter().map(|address| format!(" {address}")).collect();
    let check = if to.ours {
        format!("  health_uri {CHECK}\n  health_interval 1s\n  health_timeout 1s\n  health_fails 2\n")
    } else {
        String::new()
    };
    format!(
        "{{
 admin off
 auto_https off
 persist_config off
}}
http://:{port} {{
 bind {ip}
 reverse_proxy{replicas} {{
  lb_policy least_conn
  lb_retries 2
{check}  fail_duration 5s
  max_fails 10
  unhealthy_status 5xx
  transport http {{
   dial_timeout 1s
   response_header_timeout 60s
   keepalive_idle_conns_per_host 512
   keepalive_idle_conns 2048
  }}
 }}
}}
",
        port = listen.port(),
        ip = listen.ip(),
    )
}

/// The static part of Traefik's configuration.
pub fn traefik_main(listen: SocketAddr) -> String {
    format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints: {{web: {{address: \"{listen}\"}}}}
providers: {{file: {{filename: dynamic.yaml}}}}
"
    )
}

/// Traefik, reference of the HTTP service: `healthCheck`, `passiveHealthCheck` (failures within a window, raised as for
/// the others), `p2c`, which is the nearest that it has to least connections, or `leasttime`; reference of the retry
/// middleware, which is off by default.
pub fn traefik(to: &Upstream, by_time: bool) -> String {
    let servers: Vec<String> = to.addresses.iter().map(|address| format!("{{url: \"http://{address}\"}}")).collect();
    let servers = servers.join(", ");
    let strategy = if by_time { "leasttime" } else { "p2c" };
    let check = if to.ours {
        format!("healthCheck: {{path: {CHECK}, interval: 1s, unhealthyInterval: 1s, timeout: 1s}}, ")
    } else {
        String::new()
    };
    format!(
        "http:
  routers: {{app: {{rule: \"PathPrefix(`/`)\", service: app, entryPoints: [web], middlewares: [again]}}}}
  middlewares: {{again: {{retry: {{attempts: 3}}}}}}
  serversTransports:
    kept: {{maxIdleConnsPerHost: 512, forwardingTimeouts: {{dialTimeout: 1s, responseHeaderTimeout: 60s}}}}
  services:
    app:
      loadBalancer:
        {{strategy: {strategy}, serversTransport: kept, servers: [{servers}], {check}
        passiveHealthCheck: {{failureWindow: 5s, maxFailedAttempts: 10}}}}
"
    )
}
