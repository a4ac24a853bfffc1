//! The feed's WebSocket with an echo in place of the feed, for the Autobahn suite: the same server,
//! handshake, limits and closing handshake. `websocket-echo PORT` serves it at `/ws`, until it is killed.

use std::{future::pending, net::Ipv4Addr};

use anyhow::Context;
use axum::{
    Router,
    extract::{
        Request,
        ws::{Message, WebSocket},
    },
    response::Response,
    routing::get,
};
use dataplane::{
    http::live::{closing, handshake},
    server,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("give it a port: websocket-echo PORT")?;
    let port =
        port.parse::<u16>().with_context(|| format!("{port} is no port: give a number up to 65535"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let routes = Router::new().route("/ws", get(web_socket)).route("/readyz", get(async || "ok"));
    server::serve(listener, None, routes, pending()).await;
    Ok(())
}

async fn web_socket(request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    match handshake::take(&mut parts).await {
        Ok(upgrade) => upgrade.on_upgrade(echo),
        Err(refused) => *refused,
    }
}

async fn echo(mut socket: WebSocket) {
    while let Some(received) = socket.recv().await {
        match received {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) => return closing::agree(&mut socket).await,
            Err(error) => {
                if let Some((code, reason)) = closing::code_of(error) {
                    closing::close(&mut socket, code, reason).await;
                }
                return;
            }
        }
    }
}
