//! Routes that can be listed: what is served is compared with what the OpenAPI document says.

use axum::{
    Router,
    handler::Handler,
    routing::{self, MethodRouter},
};

/// A router that knows its routes.
#[derive(Clone, Debug)]
pub struct Routes<S = ()> {
    router: Router<S>,
    listed: Vec<(&'static str, &'static str)>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), listed: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// With `GET path`.
    #[must_use]
    pub fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add("get", path, routing::get(handler))
    }

    /// With `POST path`.
    #[must_use]
    pub fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add("post", path, routing::post(handler))
    }

    /// With `DELETE path`.
    #[must_use]
    pub fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, S>) -> Self {
        self.add("delete", path, routing::delete(handler))
    }

    fn add(mut self, method: &'static str, path: &'static str, route: MethodRouter<S>) -> Self {
        self.listed.push((method, path));
        Self { router: self.router.route(path, route), ..self }
    }

    /// Both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.listed.extend(other.listed);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// The state that the handlers get.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), listed: self.listed }
    }

    /// Method, in small letters, and path of each.
    #[must_use]
    pub fn listed(&self) -> &[(&'static str, &'static str)] {
        &self.listed
    }
}

impl Routes {
    /// The same routes behind a layer.
    pub(crate) fn map(self, layer: impl FnOnce(Router) -> Router) -> Self {
        Self { router: layer(self.router), ..self }
    }

    /// What serves them.
    pub fn into_router(self) -> Router {
        self.router
    }
}
