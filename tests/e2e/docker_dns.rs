//! What Docker's embedded DNS does, on the engine at hand. The page `docs/docker-dns.md` holds what these tests print:
//! `cargo test --test e2e docker_dns -- --nocapture --test-threads 1`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use testbed::docker::{Bridge, Guest, docker, engine_answers, engine_version, try_docker};
use testbed::{App, Container, Engine, Network, Signal, confined, eventually};

/// A network with somebody on it who asks.
struct Bed {
    asker: Box<dyn Container>,
    network: Engine,
}

impl Bed {
    fn new(test: &str) -> Option<Bed> {
        let network = Engine::for_test(&format!("docker_dns::{test}"))?;
        let asker = network.start("asker", &App::replica());
        Some(Bed { asker, network })
    }

    /// What `ask` prints there with these arguments, a line each.
    fn ask(&self, arguments: &str) -> Vec<Value> {
        ask(&self.asker.id(), arguments)
    }

    fn answer(&self, arguments: &str) -> Value {
        self.ask(arguments).swap_remove(0)
    }

    /// The addresses that `app` resolves to now.
    fn addresses(&self) -> BTreeSet<String> {
        records(&self.answer("app. --edns 4096")).into_iter().collect()
    }

    /// Watches `app` while `act` runs and a while longer.
    fn watch(&self, act: impl FnOnce()) -> Vec<Value> {
        let asker = self.asker.id();
        std::thread::scope(|scope| {
            let watching = scope.spawn(move || ask(&asker, "app. --edns 4096 --watch 4000"));
            act();
            watching.join().unwrap()
        })
    }
}

fn ask(container: &str, arguments: &str) -> Vec<Value> {
    let program = testbed::binary("ask").display().to_string();
    let mut command = vec!["exec", container, &program];
    command.extend(arguments.split(' '));
    docker(command).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn records(told: &Value) -> Vec<String> {
    told["answer"]["records"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect()
}

/// A finding, for the page.
fn found(what: &str) {
    println!("docker {}: {what}", engine_version().unwrap_or_default());
}

fn ip(container: &dyn Container) -> String {
    container.address().ip().to_string()
}

#[test]
fn an_alias_answers_the_addresses_of_all_its_containers_in_any_order_and_case() {
    let Some(bed) = Bed::new("an_alias_answers_all") else { return };
    let replicas = bed.network.scale("app", &App::replica(), 3);
    let wanted: BTreeSet<String> = replicas.iter().map(|r| ip(&**r)).collect();
    let mut orders = BTreeSet::new();
    for name in ["app.", "APP.", "aPp", "app."].into_iter().cycle().take(24) {
        let told = bed.answer(name);
        assert_eq!(records(&told).into_iter().collect::<BTreeSet<_>>(), wanted, "{name}");
        orders.insert(told["about"]["order"].to_string());
    }
    found(&format!("24 answers about three containers came in {} orders", orders.len()));
    found(&format!("the TTL is {} s", bed.answer("app.")["about"]["ttl"]));
    let told = bed.answer("app. --type AAAA");
    found(&format!("AAAA of the same name: {}, {} records", told["answer"]["code"], records(&told).len()));
    assert_eq!(records(&told), Vec::<String>::new());
}

#[test]
fn more_records_than_an_answer_holds_are_told_whole_by_edns_and_tcp() {
    let Some(bed) = Bed::new("more_records") else { return };
    // Docker adds a container's records when it starts; whether it listens is not asked.
    let replicas: Vec<_> = (0..31).map(|_| bed.network.start("app", &App::replica())).collect();
    for (how, whole) in [("", false), (" --edns 4096", true), (" --tcp", true)] {
        let told = bed.answer(&format!("app.{how}"));
        let (count, truncated) = (records(&told).len(), &told["answer"]["truncated"]);
        found(&format!("31 containers{how}: {count} records, truncated: {truncated}"));
        assert_eq!(count == replicas.len(), whole, "{told}");
        assert_eq!(truncated == true, !whole, "{told}");
    }
}

#[test]
fn a_name_that_nobody_has_is_asked_outside() {
    let Some(bed) = Bed::new("a_name_that_nobody_has") else { return };
    let told = bed.answer("nobody-has-this-name.");
    found(&format!("no container has the name: {} after {} ms", told["answer"], told["took"]));
    assert!(told["answer"]["error"].is_string() || records(&told).is_empty(), "{told}");
    // Without a way out.
    let inside = Bridge::new(&["--internal"]);
    let asker = Guest::on(&inside, "asker", &App::replica());
    let told = ask(asker.name(), "nobody-has-this-name.").swap_remove(0);
    found(&format!("the same on an --internal network: {} after {} ms", told["answer"], told["took"]));
    assert!(told["answer"]["error"].is_string() || records(&told).is_empty(), "{told}");
    let resolv_conf = docker(["cp", &format!("{}:/etc/resolv.conf", asker.name()), "-"]);
    let lines = resolv_conf.split(['\n', '\0']).filter(|l| l.starts_with("options") || l.starts_with("nameserver"));
    found(&format!("resolv.conf says {:?}", lines.collect::<Vec<_>>()));
    assert!(resolv_conf.contains("nameserver 127.0.0.11"), "{resolv_conf}");
}

#[test]
fn a_record_goes_when_its_process_has_ended_and_not_before() {
    let Some(bed) = Bed::new("a_record_goes") else { return };
    let app = App::replica().env("ON_TERM", "ignore");
    let replicas = bed.network.scale("app", &app, 2);
    let both = bed.addresses();
    assert_eq!(both.len(), 2);
    replicas[0].pause();
    assert_eq!(bed.addresses(), both, "a paused one is listed");
    replicas[0].resume();
    replicas[0].signal(Signal::SIGTERM);
    assert_eq!(bed.addresses(), both, "one that was told to go and has not gone is listed");
    let seen = bed.watch(|| {
        replicas[0].signal(Signal::SIGKILL);
        replicas[0].wait_exit();
    });
    let gone = seen.iter().find(|told| records(told).len() == 1).expect("its record goes")["at"].as_u64().unwrap();
    let ended = docker(["inspect", "--format", "{{.State.FinishedAt}}", &replicas[0].id()]);
    let ended = humantime::parse_rfc3339(&ended).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let late = gone as i64 - ended.as_millis() as i64;
    found(&format!("the record went {late} ms after the engine saw the process end"));
    assert!(late < 2500, "{seen:?}");
    let seen = bed.watch(|| replicas[1].disconnect());
    found(&format!(
        "after docker network disconnect the next answers were {:?}",
        seen.iter().map(|t| &t["answer"]).collect::<Vec<_>>()
    ));
    eventually("nobody is listed", || bed.answer("app.")["answer"]["records"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn a_renamed_container_keeps_its_alias_but_for_a_moment() {
    let Some(bed) = Bed::new("a_renamed_container") else { return };
    let replicas = bed.network.scale("app", &App::replica(), 2);
    let seen = bed.watch(|| {
        for _ in 0..8 {
            replicas[0].rename(Duration::ZERO);
        }
    });
    let without = seen.iter().filter(|told| records(told).len() < 2).count();
    found(&format!("in 16 renames of a live container its alias was seen to be gone {without} times"));
    assert_eq!(records(seen.last().unwrap()).len(), 2, "it is back");
}

// T12
#[test]
fn a_freed_address_is_soon_somebody_elses() {
    let Some(bed) = Bed::new("a_freed_address") else { return };
    let before = ip(&*bed.network.start("app", &App::replica()));
    let mut next = vec![];
    let mut kept = vec![];
    for _ in 0..3 {
        let other = bed.network.start("other", &App::replica());
        next.push(ip(&*other));
        kept.push(other);
    }
    let after = next.iter().position(|address| *address == before);
    let after = after.unwrap_or_else(|| panic!("{before} was freed, and the next three containers got {next:?}"));
    found(&format!("{before} was freed, and given to the container number {} after that", after + 1));
    assert_eq!(next.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn on_two_networks_the_answer_is_of_one() {
    if !engine_answers("docker_dns::on_two_networks") {
        return;
    }
    let (one, two) = (Bridge::new(&[]), Bridge::new(&[]));
    let start = |network: &Bridge| {
        let on = ["--network", network.name(), "--network-alias", "app"].map(String::from);
        Guest::run("app", on.into_iter().chain(confined(&App::replica(), "app")))
    };
    let _apps = [start(&one), start(&two)];
    let asker = Guest::on(&one, "asker", &App::replica());
    docker(["network", "connect", two.name(), asker.name()]);
    let told = ask(asker.name(), "app.").swap_remove(0);
    found(&format!("on two networks that both have the name: {} record(s)", records(&told).len()));
    assert!(!records(&told).is_empty(), "{told}");
}

// D3: the constant that tells a broken request from a dead replica (`pool::HANDOVER`)
#[test]
fn an_address_does_not_change_hands_within_the_time_in_which_a_break_is_forgiven() {
    if !engine_answers("docker_dns::an_address_does_not_change_hands") {
        return;
    }
    let fastest = (0..3).map(|_| handover(&room_for_one())).min().unwrap();
    println!("from the kill of one container to the start of the next on its address: {fastest:?} at least");
    assert!(fastest > evenkeel::pool::HANDOVER, "{fastest:?}");
}

/// A network with room for one container: the second can only get the address of the first. It is made anew for each
/// handover, since an address that a busy engine is slow to free would fail the next one. 198.18.0.0/15 is for
/// measurements (RFC 2544): neither an engine nor a machine's own networks use it.
fn room_for_one() -> Bridge {
    let number = fastrand::u16(..);
    Bridge::new(&["--subnet", &format!("198.18.{}.{}/30", number >> 8, number & 0xfc)])
}

/// The time from the kill of one container to the moment when the engine says that another runs on its address.
fn handover(bridge: &Bridge) -> Duration {
    let old = Guest::on(bridge, "old", &App::replica());
    let new = Guest::created_on(bridge, "new", &App::replica());
    let address = |guest: &Guest| guest.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let before = address(&old);
    let pid: i32 = old.inspect("{{.State.Pid}}").parse().unwrap();
    let killed = Instant::now();
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    let mut obstacle = String::new();
    eventually("the next one has the address", || match try_docker(["start", new.name()]) {
        Ok(_) => true,
        Err(error) => {
            if error.to_string() != obstacle {
                obstacle = error.to_string();
                println!("{obstacle}");
            }
            false
        }
    });
    let took = killed.elapsed();
    assert_eq!(address(&new), before);
    took
}
