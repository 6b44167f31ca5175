//! The three scenes.

use std::time::Duration;

use super::cast::Actor;
use crate::clients::{line::Line, request::Request, stage::Stage};

/// Pause after each message.
const AFTER_MESSAGE: Duration = Duration::from_millis(1_200);

/// Pause after the members of a room have joined.
const AFTER_JOINS: Duration = Duration::from_secs(1);

/// Pause after each join of the last scene.
const AFTER_JOIN: Duration = Duration::from_millis(800);

const FRIENDS: &str = "friends";
const WORK: &str = "work";

/// The result of a scene.
#[derive(Debug, Clone)]
pub(crate) struct Played {
    pub(crate) title: &'static str,
    pub(crate) good: bool,
}

/// An action of a client, and the pause after it.
#[derive(Debug)]
struct Step<'a> {
    actor: &'a Actor,
    request: Request,
    pause: Duration,
}

/// The title of a scene, and its actions.
type Scene = (&'static str, fn(&[Actor]) -> Vec<Step<'_>>);

/// Runs the scenes one after the other. An error in a scene does not end it.
pub(crate) fn play_all(cast: &[Actor], stage: &Stage, timeout: Duration) -> Vec<Played> {
    let scenes: [Scene; 3] = [
        ("Demo 1: Basic messaging", messaging),
        ("Demo 2: Room-based communication", two_rooms),
        ("Demo 3: All clients in one room", one_room),
    ];
    let mut played = Vec::new();
    for (title, steps) in scenes {
        if stage.stop.is_set() {
            break;
        }
        stage.heading(title);
        let good = play(cast, steps(cast), stage, timeout);
        stage.say(&match good {
            true => Line::good(format!("{title} completed successfully")),
            false => Line::warning(format!("{title} completed with some issues")),
        });
        played.push(Played { title, good });
    }
    played
}

fn play(cast: &[Actor], steps: Vec<Step<'_>>, stage: &Stage, timeout: Duration) -> bool {
    let errors = || cast.iter().map(|actor| actor.session.tally().errors).sum::<u64>();
    let before = errors();
    let mut good = true;
    for step in steps {
        good &= step.actor.send(&step.request);
        good &= stage.pause(step.pause);
        if stage.stop.is_set() {
            break;
        }
    }
    for actor in cast.iter().filter(|actor| actor.is_present()) {
        good &= actor.session.settle(timeout) == 0;
    }
    good && errors() == before
}

/// One line for each client; clients without a line introduce themselves.
fn say<'a>(
    cast: &'a [Actor],
    lines: [&str; 3],
    room: impl Fn(usize) -> Option<&'static str>,
) -> Vec<Step<'a>> {
    let step = |(number, actor): (usize, &'a Actor)| {
        let words =
            lines.get(number).map_or_else(|| format!("Hello from {}!", actor.name), |&line| line.to_owned());
        let text = format!("[{}] {words}", actor.name);
        let request = match room(number) {
            None => Request::message(&text),
            Some(room) => Request::room_message(room, &text),
        };
        Step { actor, request, pause: AFTER_MESSAGE }
    };
    cast.iter().enumerate().map(step).collect()
}

fn messaging(cast: &[Actor]) -> Vec<Step<'_>> {
    say(cast, ["Hello everyone!", "Hi Alice! How are you?", "Hey there! Nice to meet you all!"], |_| None)
}

/// The first two clients share one room, the others another one.
fn two_rooms(cast: &[Actor]) -> Vec<Step<'_>> {
    let room = |number| if number < 2 { FRIENDS } else { WORK };
    let last_friend = cast.len().min(2) - 1;
    let mut steps: Vec<_> = cast
        .iter()
        .enumerate()
        .map(|(number, actor)| {
            let is_last = number == last_friend || number == cast.len() - 1;
            let pause = if is_last { AFTER_JOINS } else { Duration::ZERO };
            Step { actor, request: Request::join(room(number)), pause }
        })
        .collect();
    let lines =
        ["This message is only for friends!", "I can see this message too!", "Working hard over here!"];
    steps.extend(say(cast, lines, |number| Some(room(number))));
    steps
}

fn one_room(cast: &[Actor]) -> Vec<Step<'_>> {
    let join = |actor| Step { actor, request: Request::join(FRIENDS), pause: AFTER_JOIN };
    let mut steps: Vec<_> = cast.iter().map(join).collect();
    let lines = ["Now we're all together!", "Great to have everyone here!", "This is much better!"];
    steps.extend(say(cast, lines, |_| Some(FRIENDS)));
    steps
}
