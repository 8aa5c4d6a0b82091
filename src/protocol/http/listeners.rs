//! The sockets that a plane listens on: one, or one for each address that its host name has.

use std::{
    future::poll_fn,
    io,
    net::{self, SocketAddr},
    task::Poll,
};

use tokio::net::{TcpListener, TcpStream};

/// At least one listening socket, all on the same port.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Listens on each of `addresses`, which are what one host name stands for. Where port 0 is asked for, all get the free
    /// port of the first. An address of a family that this machine does not have is left out, as long as one is left.
    ///
    /// # Errors
    /// That of the first address that could not be listened on.
    pub async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut missing = None;
        for address in addresses {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), listeners.first()) {
                address.set_port(first.local_addr()?.port());
            }
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_of_no_use_here(&error) => {
                    tracing::info!(%address, %error, "not listened on");
                    missing.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if listeners.is_empty() => Err(error),
            None if listeners.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address")),
            _ => Ok(Self(listeners)),
        }
    }

    /// Of the first.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0[0].local_addr()
    }

    /// The sockets, to be taken to another runtime.
    pub fn into_std(self) -> io::Result<Vec<net::TcpListener>> {
        self.0.into_iter().map(TcpListener::into_std).collect()
    }

    /// The reverse of [`Self::into_std`].
    pub fn from_std(listeners: Vec<net::TcpListener>) -> io::Result<Self> {
        listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>().map(Self)
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let ready = self.0.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
            ready.unwrap_or(Poll::Pending)
        })
        .await
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self(vec![listener])
    }
}

/// The machine has no IPv6, or not this address.
fn is_of_no_use_here(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_are_listened_on_with_one_port() {
        let listeners = Listeners::bind(&addresses(&["127.0.0.1:0", "127.0.0.2:0"])).await.unwrap();
        let port = listeners.local_addr().unwrap().port();
        for host in ["127.0.0.1", "127.0.0.2"] {
            let stream = TcpStream::connect((host, port)).await.unwrap();
            let (accepted, peer) = listeners.accept().await.unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
            assert_eq!(accepted.local_addr().unwrap().ip().to_string(), host);
        }
        // Also in the hands of another runtime.
        let again = Listeners::from_std(listeners.into_std().unwrap()).unwrap();
        assert_eq!(again.local_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn address_that_this_machine_does_not_have_is_left_out_and_a_taken_one_is_not() {
        // Of a range for documentation, which no machine has.
        let listeners = Listeners::bind(&addresses(&["192.0.2.1:0", "127.0.0.1:0"])).await.unwrap();
        let taken = listeners.local_addr().unwrap();
        assert_eq!(listeners.0.len(), 1);
        assert!(Listeners::bind(&addresses(&["192.0.2.1:0"])).await.is_err());
        let refused = Listeners::bind(&[SocketAddr::from(([127, 0, 0, 3], taken.port())), taken]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(Listeners::bind(&[]).await.is_err());
    }
}
