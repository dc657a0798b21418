//! A WebSocket (RFC 6455) to the cloud. Who may open it says a ticket among the subprotocols.

use reqwest::header::{self, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::requests::builder;
use crate::{Client, Error, Result};

pub type WebSocket = WebSocketStream<Upgraded>;

impl Client {
    /// Opens the WebSocket that the cloud has named, once: at the address where the cloud is known to be, as safely as
    /// everything else is said to it.
    ///
    /// # Errors
    /// What the API says when it refuses.
    pub async fn websocket(&self, url: &str, subprotocols: &[String]) -> Result<WebSocket> {
        let path =
            url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let url = format!("{}/{path}", self.url());
        let foreign = |status: StatusCode| Error::Foreign { url: url.clone(), status: status.as_u16() };
        // A connection of HTTP/2 cannot become another.
        let http = builder()
            .http1_only()
            .redirect(Policy::none())
            .build()
            .map_err(|error| self.unreachable(&error))?;
        let key = generate_key();
        let mut request = http
            .get(&url)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        for subprotocol in subprotocols {
            let mut value =
                HeaderValue::from_str(subprotocol).map_err(|_| foreign(StatusCode::BAD_REQUEST))?;
            value.set_sensitive(true);
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refused(response).await);
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.map(HeaderValue::as_bytes) != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(foreign(status));
        }
        let connection = response.upgrade().await.map_err(|error| self.unreachable(&error))?;
        Ok(WebSocketStream::from_raw_socket(connection, Role::Client, None).await)
    }
}
