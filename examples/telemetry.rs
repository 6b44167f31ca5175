//! Telemetry: one thread for each sensor measures, and clients receive the sensors that they asked for.
//!
//! ```console
//! $ cargo run --example telemetry -- 127.0.0.1:3000                        # terminal 1: the server
//! $ cargo run --example telemetry -- watch http://127.0.0.1:3000 load      # terminal 2: a client
//! load 0.42
//! load 0.39
//! ```
//!
//! The sensors are `load`, `memory` (available, in KiB) and `uptime` (in seconds), all from `/proc`.
//!
//! | a client emits | the acknowledgement | then it gets |
//! |---|---|---|
//! | `watch` sensor | the value now, or `null` if there is no such sensor | `reading` (sensor, value) every second |
//! | `unwatch` sensor | none | no more readings of that sensor |

use std::{error::Error, fs, io, thread, time::Duration};

use tinysio::{
    Client,
    server::{EmitError, HandlerResult, Namespace, Server, Socket},
};

/// The time between two readings.
const PERIOD: Duration = Duration::from_secs(1);

/// A sensor: its name, the file that it reads, and the position of its number among the words of that file.
#[derive(Debug, Clone, Copy)]
struct Sensor {
    name: &'static str,
    file: &'static str,
    word: usize,
}

const SENSORS: [Sensor; 3] = [
    Sensor { name: "load", file: "/proc/loadavg", word: 0 },
    // MemTotal: 1 kB MemFree: 2 kB MemAvailable: 3 kB
    Sensor { name: "memory", file: "/proc/meminfo", word: 7 },
    Sensor { name: "uptime", file: "/proc/uptime", word: 0 },
];

impl Sensor {
    fn find(name: &str) -> Option<Self> {
        SENSORS.into_iter().find(|sensor| sensor.name == name)
    }

    fn read(self) -> Option<f64> {
        let text = fs::read_to_string(self.file).ok()?;
        text.split_whitespace().nth(self.word)?.parse().ok()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["watch", url, sensor] => {
            let client = watch(url, sensor, |sensor, value| println!("{sensor} {value}"))?;
            client.wait()?;
        }
        [] => serve("127.0.0.1:3000")?,
        [address] => serve(address)?,
        _ => return Err("usage: telemetry [ADDRESS] | telemetry watch URL SENSOR".into()),
    }
    Ok(())
}

fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let server = start(address, PERIOD)?;
    if let Some(address) = server.local_addr() {
        println!("listening on http://{address}");
    }
    server.wait();
    Ok(())
}

/// Starts the server and the threads of the sensors. The threads end with the server.
pub(crate) fn start(address: &str, period: Duration) -> Result<Server, Box<dyn Error>> {
    let server = Server::builder()
        .namespace("/", |ns| {
            ns.on("watch", |socket, event| -> HandlerResult {
                Ok(event.ack(join(socket, &event.arg::<String>(0)?))?)
            });
            ns.on("unwatch", |socket, event| -> HandlerResult {
                socket.leave(&room(&event.arg::<String>(0)?));
                Ok(())
            });
        })
        .listen(address)?;
    let namespace = server.of("/").ok_or("the namespace is missing")?;
    for sensor in SENSORS {
        publish(sensor, namespace.clone(), period)?;
    }
    Ok(server)
}

/// Only known sensors have a room, so a client cannot fill the memory of the server with rooms.
fn join(socket: &Socket, sensor: &str) -> Option<f64> {
    let sensor = Sensor::find(sensor)?;
    socket.join(&room(sensor.name));
    sensor.read()
}

fn room(sensor: &str) -> String {
    format!("sensor:{sensor}")
}

/// Starts the thread of one sensor. Any thread may emit: a `Namespace` is a handle that can be cloned.
fn publish(sensor: Sensor, namespace: Namespace, period: Duration) -> io::Result<()> {
    let run = move || {
        loop {
            if let Some(value) = sensor.read() {
                // Volatile: a client that cannot keep up misses readings, instead of getting old ones.
                let room = namespace.to(&room(sensor.name)).volatile();
                match room.emit("reading", (sensor.name, value)) {
                    Err(EmitError::ServerGone) => return,
                    Err(error) => eprintln!("{}: {error}", sensor.name),
                    Ok(()) => {}
                }
            }
            thread::sleep(period);
        }
    };
    thread::Builder::new().name(format!("sensor-{}", sensor.name)).spawn(run)?;
    Ok(())
}

/// Connects a client that passes the readings of one sensor to `handler`. It reconnects until it is dropped.
pub(crate) fn watch(
    url: &str,
    sensor: &str,
    handler: impl Fn(String, f64) + Send + Sync + 'static,
) -> Result<Client, Box<dyn Error>> {
    let client = Client::builder(url).build()?;
    let socket = client.socket("/");
    socket.on("reading", move |_, event| {
        let (sensor, value) = event.parse()?;
        handler(sensor, value);
        Ok::<(), serde_json::Error>(())
    });
    // After a reconnection the server does not know this client's rooms any more, so it asks again each time.
    let sensor = sensor.to_owned();
    socket.on_connect(move |socket| {
        if let Err(error) = socket.emit("watch", &sensor) {
            eprintln!("{error}");
        }
    });
    client.connect()?;
    Ok(client)
}
