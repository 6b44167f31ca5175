//! The demonstrations: that they show what they say, and that their exit codes are true.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tinysio::chat::{Limits, Options};

use crate::{
    program::{AUTO, CLIENT, FINAL, MULTIPLE, run, start},
    served::{Served, free_port},
};

/// Pauses of a twentieth.
const QUICK: [&str; 2] = ["--speed", "20"];

fn quick(program: &str, args: &[&str]) -> crate::program::Ran {
    run(program, &[args, &QUICK].concat())
}

#[test]
fn client_demo() {
    let served = Served::new();
    let ran = quick(CLIENT, &[&served.url(), "demo"]).exits(0);
    assert_eq!(ran.out.matches("Step completed").count(), 6, "{ran}");
    for step in [
        "Sending basic message...",
        "Sending test message...",
        "Sending custom event...",
        "Joining test room...",
        "Sending room message...",
        "Leaving test room...",
        "Demo completed successfully!",
        "Cleaning up demo...",
    ] {
        assert!(ran.out.contains(step), "{step}\n{ran}");
    }
}

#[test]
fn client_demo_with_a_step_that_fails() {
    let limits = Limits { message: 23, ..Limits::default() };
    let served = Served::with(Options { limits, ..Options::default() }, |builder| builder);
    let ran = quick(CLIENT, &[&served.url(), "demo"]).exits(1);
    ran.says("Step failed: Message too long").says("Step completed").says("Demo completed successfully!");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    quick(CLIENT, &[&nobody, "demo"]).exits(1).says("Could not connect");
}

#[test]
fn client_validate() {
    let served = Served::new();
    let ran = quick(CLIENT, &[&served.url(), "validate"]).exits(0);
    ran.says("Automatic reconnection   passed").says("Manual reconnection").says_not("FAILED");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    quick(CLIENT, &[&nobody, "validate"]).exits(1).says("FAILED");
}

#[test]
fn client_errors() {
    let served = Served::new();
    let ran = quick(CLIENT, &[&served.url(), "errors", "--clients", "3", "--messages", "40"]).exits(0);
    ran.says("36 of 36 answered rightly").says("has survived").says("3 clients × 40 messages").says("120");
    // A server with other limits answers otherwise, and that is seen.
    let limits = Limits { message: 20_000, ..Limits::default() };
    let served = Served::with(Options { limits, ..Options::default() }, |builder| builder);
    let ran =
        quick(CLIENT, &[&served.url(), "errors", "--clients", "1", "--messages", "1", "--timeout", "1s"]);
    ran.exits(1).says("34 of 36 answered rightly");
}

#[test]
fn multiple_clients() {
    let served = Served::new();
    let ran = quick(MULTIPLE, &[&served.url()]).exits(0);
    let ran = ran.says("All 3 clients connected");
    let ran =
        ran.says("[Bob] Broadcast from").says("[Alice] Hello everyone!").says("[Alice] Joined room: friends");
    let ran = ran.says("[Charlie] Joined room: work").says_not("New user connected");
    for demo in
        ["Demo 1: Basic messaging", "Demo 2: Room-based communication", "Demo 3: All clients in one room"]
    {
        assert!(ran.out.contains(&format!("{demo} completed successfully")), "{demo}\n{ran}");
    }
    ran.says("client   status     sent  received  confirmed");
}

#[test]
fn multiple_clients_of_whom_one_fails() {
    let served = Served::with(Options::default(), |builder| builder.max_connections(2));
    let ran = quick(MULTIPLE, &[&served.url()]).exits(0);
    let ran = ran.says("Could not connect: Charlie");
    let ran = ran.says("Demo 1: Basic messaging completed with some issues").says("[Bob] Broadcast from");
    ran.says("Charlie  failed");
}

#[test]
fn multiple_clients_in_json() {
    let served = Served::new();
    let args = [&served.url(), "--json", "--clients", "5", "--rounds", "2"];
    let ran = quick(MULTIPLE, &args).exits(0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["scenes"].as_array().unwrap().len(), 6);
    let clients = report["clients"].as_array().unwrap();
    let names: Vec<_> = clients.iter().map(|client| client["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Alice", "Bob", "Charlie", "Client4", "Client5"]);
    for client in clients {
        assert_eq!(client["sent"], 10, "{client}");
        assert_eq!(client["confirmed"], 10, "{client}");
        assert_eq!(client["errors"].as_array().unwrap().len(), 0, "{client}");
        assert!(client["round_trip_p50_ms"].as_f64().unwrap() > 0.0, "{client}");
    }
}

#[test]
fn multiple_clients_interrupted() {
    let served = Served::new();
    // At the usual pace: the signal comes in the first scene.
    let running = start(MULTIPLE, &[&served.url()], "");
    served.waits_for_clients(3);
    let pid = Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
    // As `timeout` does it: to the process, and to its group.
    kill_process(pid, Signal::INT).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = running.ends().exits(0).says("Disconnecting all clients").says("client   status");
    ran.says_not("Demo 2");
}

#[test]
fn multiple_clients_without_a_server() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    quick(MULTIPLE, &[&nobody]).exits(1).says("Could not connect: Alice, Bob, Charlie").says("failed");
}

#[test]
fn auto_reconnect_demo_working() {
    let served = Served::new();
    let ports = format!("{},{}", free_port(), served.port);
    let ran = quick(AUTO, &["working", "--ports", &ports]).exits(0);
    let ran = ran.says(&format!("Found a server on port {}", served.port));
    assert_eq!(ran.out.matches("Message confirmed: Working connection test message").count(), 5, "{ran}");
    quick(AUTO, &["working", "--ports", &free_port().to_string()]).exits(1).says("No server found");
}

#[test]
fn auto_reconnect_demo_default() {
    let ran = quick(AUTO, &["--port", &free_port().to_string()]).exits(0);
    let ran = ran.says("Manual reconnection attempt 4/10...").says("Starting a server on port");
    let ran = ran.says("Message confirmed: Post-reconnect message 3").says("Killing the server");
    let ran = ran.says("Attempting reconnection 1/10...").says("Reconnected to server");
    ran.says("Message confirmed: Message after the automatic reconnection 3")
        .says("The connection came back");
}

#[test]
fn auto_reconnect_demo_that_does_not_come_back() {
    let port = free_port().to_string();
    let ran = quick(AUTO, &["--port", &port, "--external", "--attempts", "2"]).exits(1);
    ran.says("2 attempts failed");
}

#[test]
fn final_reconnect_demo() {
    let ran = quick(FINAL, &[]).exits(0);
    assert_eq!(ran.out.matches("PASSED").count(), 7, "{ran}");
    ran.says("Disconnected by the server   passed").says_not("FAILED");
}

#[test]
fn final_reconnect_demo_with_a_server_of_somebody_else() {
    let served = Served::new();
    let ran = quick(FINAL, &[&served.url()]).exits(0);
    assert_eq!(ran.out.matches("PASSED").count(), 6, "{ran}");
    ran.says("SKIPPED");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    quick(FINAL, &[&nobody, "--timeout", "500ms"]).exits(1).says("FAILED");
}

#[test]
fn final_reconnect_demo_success() {
    let served = Served::new();
    let ran = quick(FINAL, &["success", &served.url()]).exits(0);
    ran.says("Message confirmed: Message before the disconnection").says("Manual reconnection   passed");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    quick(FINAL, &["success", &nobody]).exits(1).says("FAILED");
}
