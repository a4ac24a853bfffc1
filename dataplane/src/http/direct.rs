//! The direct way to one record by its key, and to a new one, which is what most requests ask for: the
//! handler that the router would find, without its tables and boxes. A write that is refused costs little,
//! too.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, extract::Request, response::Response};
use futures::future::BoxFuture;
use http::Method;
use tower::{Service, ServiceExt};

use super::{extract::Call, resource::Resource, router::Api};
use crate::http::pool::Pool;
use model::routes::fixed_words;

/// A pool, and the words that are routes in the place of a key.
struct Collection {
    resource: Arc<Resource>,
    fixed: Vec<&'static str>,
}

/// All routes of the API, and the direct way beside them.
#[derive(Clone)]
pub struct Routes {
    /// The pools by the paths of their collections.
    collections: Arc<HashMap<String, Collection>>,
    router: Router,
}

impl Routes {
    /// The routes of an API.
    pub fn new(api: &Api, router: Router) -> Self {
        let entry = |Pool { resource, .. }: &Pool| {
            let fixed = fixed_words(&resource.path);
            (resource.path.clone(), Collection { resource: Arc::clone(resource), fixed })
        };
        Self { collections: Arc::new(api.pools.iter().map(entry).collect()), router }
    }

    /// Answers a request.
    pub async fn answer(self, request: Request) -> Response {
        match *request.method() {
            Method::GET => {
                if let Some((resource, key)) = self.record_of(request.uri().path()) {
                    return resource.get(Call::new(request, Some(key))).await;
                }
            }
            Method::POST => {
                let collection = self.collections.get(request.uri().path());
                if let Some(Collection { resource, .. }) = collection.filter(|one| one.resource.is_writable())
                {
                    return resource.post(Call::new(request, None)).await;
                }
            }
            _ => (),
        }
        self.router.oneshot(request).await.unwrap_or_else(|error| match error {})
    }

    /// The pool and the key of a record with this path. What is anything else, or in doubt, is the router's.
    fn record_of(&self, path: &str) -> Option<(&Arc<Resource>, String)> {
        let (collection, key) = path.rsplit_once('/')?;
        let Collection { resource, fixed } = self.collections.get(collection)?;
        if fixed.contains(&key) || key.contains('%') {
            return None;
        }
        Some((resource, key.to_owned()))
    }
}

impl Service<Request> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let routes = self.clone();
        Box::pin(async move { Ok(routes.answer(request).await) })
    }
}
