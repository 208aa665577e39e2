//! Every address of the API, and which function serves it. API Gateway is told the same by the
//! template, and a test compares the two; `$default` needs it to tell a path that nobody serves from
//! a method that a path does not take.

/// One method at one path; a part in braces stands for any text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub function: &'static str,
    pub method: &'static str,
    pub path: &'static str,
}

const fn route(function: &'static str, method: &'static str, path: &'static str) -> Route {
    Route {
        function,
        method,
        path,
    }
}

pub const ROUTES: [Route; 46] = [
    route("api_default", "GET", "/health"),
    route("api_default", "GET", "/docs/errors"),
    route("api_default", "GET", "/api/v1/openapi.json"),
    route("api_events", "POST", "/api/v1/events"),
    route("api_merchants", "POST", "/api/v1/merchants"),
    route("api_merchants", "GET", "/api/v1/merchants/{merchant_id}"),
    route("api_integrations", "GET", "/api/v1/integrations"),
    route("api_integrations", "GET", "/api/v1/integrations/{category}"),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{provider}/connect",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{provider}/import",
    ),
    route(
        "api_integrations",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}",
    ),
    route(
        "api_integrations",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/history",
    ),
    route(
        "api_integrations",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/accounts",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/confirm",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/reconnect",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/check",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/pause",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/resume",
    ),
    route(
        "api_integrations",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/disconnect",
    ),
    route(
        "api_integrations",
        "PUT",
        "/api/v1/integrations/{category}/{connection_id}/settings",
    ),
    route("api_records", "GET", "/api/v1/integrations/summary"),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/records",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/records/{type}/{record_id}",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/errors",
    ),
    route(
        "api_records",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/retry",
    ),
    route(
        "api_records",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/resync",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/resync",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/summary",
    ),
    route(
        "api_records",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/backfill",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/backfill",
    ),
    route(
        "api_records",
        "DELETE",
        "/api/v1/integrations/{category}/{connection_id}/backfill",
    ),
    route(
        "api_records",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/reconcile",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/reconciliations",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/reconciliations/{reconciliation_id}",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/reconciliations/{reconciliation_id}/report.csv",
    ),
    route(
        "api_records",
        "GET",
        "/api/v1/integrations/{category}/{connection_id}/reconciliations/{reconciliation_id}/report.html",
    ),
    route(
        "api_records",
        "POST",
        "/api/v1/integrations/{category}/{connection_id}/reconciliations/{reconciliation_id}/differences/{difference_id}/{decision}",
    ),
    route("api_webhooks", "POST", "/api/v1/webhooks/register"),
    route("api_webhooks", "GET", "/api/v1/webhooks"),
    route("api_webhooks", "GET", "/api/v1/webhooks/{endpoint_id}"),
    route(
        "api_webhooks",
        "GET",
        "/api/v1/webhooks/{endpoint_id}/attempts",
    ),
    route("oauth_start", "GET", "/connect/{link}"),
    route("oauth_callback", "GET", "/oauth/cb/{provider}/{tenant}"),
    route("oauth_callback", "POST", "/oauth/cb/{provider}/{tenant}"),
    route("oauth_callback", "GET", "/oauth/proof/{secret}"),
    route("hooks_intake", "POST", "/hooks/{provider}/{tenant}"),
];

impl Route {
    fn matches(&self, path: &str) -> bool {
        let (mut own, mut given) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), given.next()) {
                (None, None) => return true,
                (Some(own), Some(given)) if own == given => {}
                (Some(own), Some(given)) if own.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    }
}

/// The route of a method at a path.
pub fn find(method: &str, path: &str) -> Option<&'static Route> {
    let mut routes = ROUTES.iter();
    routes.find(|route| route.method == method && route.matches(path))
}

/// The methods that `path` takes, without doubles; none when nothing is served there.
pub fn methods(path: &str) -> Vec<&'static str> {
    let mut methods: Vec<&str> = ROUTES
        .iter()
        .filter(|route| route.matches(path))
        .map(|route| route.method)
        .collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

#[cfg(test)]
mod tests {
    use super::methods;

    #[test]
    fn a_path_takes_the_methods_of_its_routes() {
        for (path, expected) in [
            ("/api/v1/events", &["POST"][..]),
            ("/api/v1/webhooks/register", &["GET", "POST"]),
            ("/api/v1/webhooks/ep_1/attempts", &["GET"]),
            ("/api/v1/merchants/", &[]),
            ("/api/v1/events/", &[]),
            ("/api/v1/events/x", &[]),
            ("/", &[]),
        ] {
            assert_eq!(methods(path), expected, "{path}");
        }
    }
}
