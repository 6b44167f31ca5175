//! User code that misbehaves: each closure that the API takes panics, blocks, calls everything, or holds a lock. It
//! costs the call, and nothing of anybody else's.

mod acts;
mod scene;

use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use Transport::{Polling, WebSocket};
use acts::{Act, Behaviour};
use rstest::rstest;
use scene::{Place, Scene};

use crate::support::{Client, Transport, addr, eventually, in_time, next, serve_root};

/// Polling clients that do not fetch their last packets keep a stop waiting for so long.
const SOON: Duration = Duration::from_millis(50);

/// Every place where the server calls user code.
#[rstest]
#[case::on(Place::On)]
#[case::on_any(Place::OnAny)]
#[case::on_unhandled(Place::OnUnhandled)]
#[case::on_rate_limited(Place::OnRateLimited)]
#[case::middleware(Place::Middleware)]
#[case::on_connect(Place::OnConnect)]
#[case::on_disconnecting(Place::OnDisconnecting)]
#[case::on_disconnect(Place::OnDisconnect)]
#[case::on_disconnect_of_a_client_without_a_thread(Place::OnDisconnectQueued)]
#[case::acknowledgement(Place::Acknowledgement)]
#[case::acknowledgement_timeout(Place::AcknowledgementTimeout)]
#[case::the_text_of_an_error(Place::ErrorText)]
#[case::drop_of_data(Place::DropOfData)]
#[case::drop_of_replaced_data(Place::DropOfReplacedData)]
#[case::allow_request(Place::AllowRequest)]
#[case::exempt_from_ip_limit(Place::Exempt)]
#[case::route(Place::Route)]
#[case::engine_on_open(Place::EngineOpen)]
#[case::engine_on_message(Place::EngineMessage)]
#[case::engine_on_close(Place::EngineClose)]
fn user_code_costs_its_own_call_only(
    #[case] place: Place,
    #[values(
        Behaviour::Panics,
        Behaviour::Blocks,
        Behaviour::CallsEverything,
        Behaviour::WantsALock,
        Behaviour::ShutsDown
    )]
    behaviour: Behaviour,
    #[values(Polling, WebSocket)] transport: Transport,
) {
    let (act, begun) = Act::new(behaviour);
    let mut scene = Scene::new(place, &act);
    let victim = scene.provoke(place, transport);
    next(&begun, "the call of the user's code");
    match behaviour {
        Behaviour::Panics => {
            scene.others_are_served();
            let expected = scene.log_of(place);
            eventually("the panic is in the log", || acts::is_logged(&act.name, &expected));
            assert!(scene.stop(SOON), "a panic keeps the server from its end");
        }
        Behaviour::CallsEverything | Behaviour::WantsALock => {
            scene.others_are_served();
            next(&begun, "the end of the call");
            assert!(scene.stop(SOON), "some thread is left");
        }
        Behaviour::Blocks => {
            scene.others_are_served();
            // It still blocks, so this cannot be a complete stop; but a stop it is.
            assert!(!scene.stop(SOON), "the user's code has not returned");
            let expected = scene.running_of(place, &victim);
            assert!(acts::is_logged("has not returned", &expected), "the log does not name {expected:?}");
            act.release();
            next(&begun, "the end of the call");
        }
        Behaviour::ShutsDown => {
            next(&begun, "the end of the call");
            scene.wait();
        }
    }
}

/// One worker would take them one after the other.
#[test]
fn many_that_block_delay_nobody() {
    let (act, begun) = Act::new(Behaviour::Blocks);
    let mut scene = Scene::new(Place::OnDisconnectQueued, &act);
    act.arm(24);
    let victims: Vec<_> =
        (0..24).map(|_| scene.provoke_unarmed(Place::OnDisconnectQueued, Polling)).collect();
    for _ in &victims {
        next(&begun, "the call of a disconnect handler");
    }
    scene.others_are_served();
    act.release();
    assert!(scene.stop(SOON));
}

/// Each handler of a stop waits until all of them run.
#[rstest]
fn a_stop_tells_all_handlers_at_once(#[values(Polling, WebSocket)] transport: Transport) {
    const CLIENTS: usize = 12;
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let server = serve_root(|ns| _ = ns.on_disconnect(move |_, _| _ = barrier.wait()));
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::connected(addr(&server), transport)).collect();
    assert!(in_time("the shutdown", move || server.shutdown(SOON)), "some handlers have not returned");
    drop(clients);
}
