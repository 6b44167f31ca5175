//! The interactive client with commands from a pipe.

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tinysio::server::Server;

use crate::{
    program::{CLIENT, start},
    served::{Served, free_port},
};

#[test]
fn everything_is_confirmed_before_the_end() {
    let served = Served::new();
    // More than the chat lets through at once.
    let messages: String = (1..=210).map(|number| format!("msg number {number}\n")).collect();
    let ran = start(CLIENT, &[&served.url()], &messages).ends().exits(0);
    assert_eq!(ran.out.matches("✓ Message confirmed: number").count(), 210, "{ran}");
    ran.says_not("error").says("Disconnected from server").says_not("\x1b");
}

#[test]
fn commands_end_with_quit() {
    let served = Served::new();
    let input = "join \"my room\"\nroom \"my room\" hi\nhistory\nquit\nmsg never\n";
    let ran = start(CLIENT, &[&served.url()], input).ends().exits(0);
    ran.says("Joined room: my room").says(": hi").says("    3  history").says_not("never");
}

/// A script sees nothing of what a pipe says but the exit code.
#[rstest]
#[case::an_unknown_command("bogus\n", 2)]
#[case::a_missing_argument("msg fine\njoin\nmsg fine\n", 2)]
#[case::no_json("custom {\n", 2)]
#[case::what_may_not_be_sent("join a&b\n", 2)]
#[case::what_the_server_refuses("room nowhere hello\nmsg fine\n", 3)]
#[case::blank_lines("\n  \nmsg fine\n\n", 0)]
#[case::nothing("", 0)]
fn the_exit_code_tells_whether_all_was_done(#[case] input: &str, #[case] code: i32) {
    let served = Served::new();
    let ran = start(CLIENT, &[&served.url()], input).ends().exits(code);
    // A line that is wrong does not keep the others from being done.
    assert_eq!(
        ran.out.matches("✓ Message confirmed: fine").count(),
        input.matches("msg fine").count(),
        "{ran}"
    );
}

/// What was sent and not confirmed is not done, whatever else was.
#[rstest]
#[case::no_answer_in_time("ignored", 4, "1 event was not confirmed")]
#[case::the_connection_ends_before("thrown out", 1, "Not confirmed")]
fn what_is_not_confirmed_is_no_success(#[case] message: &str, #[case] code: i32, #[case] said: &str) {
    let builder = Server::builder().namespace("/", |ns| {
        ns.on("message", |socket, event| match event.arg::<String>(0).as_deref() {
            Ok("fine") => event.ack(()),
            Ok("thrown out") => {
                socket.disconnect(true);
                Ok(())
            }
            _ => Ok(()),
        });
    });
    let server = builder.listen("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let input = format!("msg fine\nmsg {message}\n");
    start(CLIENT, &[&url, "--timeout", "1s"], &input).ends().exits(code).says(said);
}

#[test]
fn a_last_line_without_an_end_counts() {
    let served = Served::new();
    start(CLIENT, &[&served.url()], "msg no newline").ends().exits(0).says("Message confirmed: no newline");
}

#[test]
fn colours_when_asked_for() {
    let served = Served::new();
    let ran = start(CLIENT, &[&served.url(), "--color", "always"], "msg x\n").ends().exits(0);
    ran.says("\x1b[32m✓ Message confirmed: x\x1b[0m");
}

#[test]
fn without_a_server_it_ends_with_1() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let ran = start(CLIENT, &[&url, "--speed", "20"], "msg x\n").ends().exits(1);
    ran.says("attempt 3/3").says("Is the server running?");
}

#[test]
fn a_signal_ends_it_although_the_pipe_is_open() {
    let served = Served::new();
    // A client whose input never ends: that of a program that itself never ends.
    let mut child = std::process::Command::new(CLIENT)
        .arg(served.url())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("Welcome!")));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("Disconnected from server")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
