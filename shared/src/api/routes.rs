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

pub const ROUTES: [Route; 60] = [
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
    route(
        "api_webhooks",
        "GET",
        "/.well-known/webhooks/{merchant_id}/{endpoint_id}/jwks.json",
    ),
    route("api_webhooks", "GET", "/api/v1/webhooks/{endpoint_id}"),
    route("api_webhooks", "PATCH", "/api/v1/webhooks/{endpoint_id}"),
    route("api_webhooks", "DELETE", "/api/v1/webhooks/{endpoint_id}"),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/enable",
    ),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/disable",
    ),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/rotate-secret",
    ),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/test",
    ),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/dry-run",
    ),
    route(
        "api_webhooks",
        "GET",
        "/api/v1/webhooks/{endpoint_id}/attempts",
    ),
    route(
        "api_webhooks",
        "GET",
        "/api/v1/webhooks/{endpoint_id}/stats",
    ),
    route("api_webhooks", "GET", "/api/v1/webhooks/{endpoint_id}/feed"),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/resend",
    ),
    route(
        "api_webhooks",
        "POST",
        "/api/v1/webhooks/{endpoint_id}/recover",
    ),
    route(
        "api_webhooks",
        "GET",
        "/api/v1/webhooks/{endpoint_id}/recover",
    ),
    route("oauth_start", "GET", "/connect/{link}"),
    route("oauth_callback", "GET", "/oauth/cb/{provider}/{tenant}"),
    route("oauth_callback", "POST", "/oauth/cb/{provider}/{tenant}"),
    route("oauth_callback", "GET", "/oauth/proof/{secret}"),
    route("hooks_intake", "GET", "/hooks/{provider}/{tenant}"),
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
    of_path(path).find(|route| route.method == method)
}

/// The routes at a path, with any method.
fn of_path(path: &str) -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(move |route| route.matches(path))
}

/// What a log may hold of a path: its template, or as much of its beginning as stands in a template. Any
/// other part can be a secret, that of a connect link at an address that is spelt wrong for one.
pub fn label(method: &str, path: &str) -> String {
    let known = find(method, path).or_else(|| of_path(path).next());
    if let Some(route) = known {
        return route.path.to_owned();
    }
    let mut label = String::new();
    for part in path.split('/').skip(1) {
        let longer = format!("{label}/{part}");
        let begins =
            |route: &Route| route.path == longer || route.path.starts_with(&format!("{longer}/"));
        if part.is_empty() || part.starts_with('{') || !ROUTES.iter().any(begins) {
            return label + "/…";
        }
        label = longer;
    }
    label
}

/// The methods that `path` takes, without doubles; none when nothing is served there.
pub fn methods(path: &str) -> Vec<&'static str> {
    let mut methods: Vec<&str> = of_path(path).map(|route| route.method).collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

#[cfg(test)]
mod tests {
    use super::{label, methods};

    #[test]
    fn a_path_takes_the_methods_of_its_routes() {
        for (path, expected) in [
            ("/api/v1/events", &["POST"][..]),
            (
                "/api/v1/webhooks/register",
                &["DELETE", "GET", "PATCH", "POST"],
            ),
            ("/api/v1/webhooks/ep_1/attempts", &["GET"]),
            ("/api/v1/merchants/", &[]),
            ("/api/v1/events/", &[]),
            ("/api/v1/events/x", &[]),
            ("/", &[]),
        ] {
            assert_eq!(methods(path), expected, "{path}");
        }
    }

    #[test]
    fn a_log_holds_nothing_of_a_path_but_what_everybody_knows() {
        for (path, expected) in [
            ("/health", "/health"),
            ("/connect/secret", "/connect/{link}"),
            ("/oauth/proof/secret", "/oauth/proof/{secret}"),
            ("/api/v1/merchants/demo", "/api/v1/merchants/{merchant_id}"),
            ("//connect/secret", "/…"),
            ("/Connect/secret", "/…"),
            ("/secret", "/…"),
            ("/connect/secret/", "/connect/…"),
            ("/connect//secret", "/connect/…"),
            ("//oauth/proof/secret", "/…"),
            ("/oauth//proof/secret", "/oauth/…"),
            ("/oauth/proof/secret/more", "/oauth/proof/…"),
            ("/oauth/proofs/secret", "/oauth/…"),
            ("/api/v1/nothing", "/api/v1/…"),
            ("/api/v1", "/api/v1"),
            ("/", "/…"),
            ("", ""),
        ] {
            for method in ["GET", "PATCH"] {
                assert_eq!(label(method, path), expected, "{path}");
            }
        }
    }
}
