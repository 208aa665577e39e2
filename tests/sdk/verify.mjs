// Verifies recorded webhook deliveries with the published `standardwebhooks` package for JavaScript.
//
// Reads JSON lines {"headers":{…},"body":"<base64>","secret":"whsec_…"} from standard input, as the
// sample receiver's GET /_control/deliveries gives them. Each delivery has to verify as it came,
// and has to be refused when its body, its id or its secret is another, or when it is late. Where a line
// has a public key ("jwk"), the asymmetric signature is verified with it, by Node's own `crypto`.
// The last line says how many were verified; the exit code is 0 only if all held.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The package is looked up from NODE_MODULES_ROOT, the folder that holds `node_modules`, since this
// file stands in the sources and the packages do not. Without it the usual look-up holds.
const root = process.env.NODE_MODULES_ROOT ?? import.meta.dirname ?? process.cwd();
const { Webhook, WebhookVerificationError } = createRequire(join(root, "verify.mjs"))("standardwebhooks");

const LATE_SECONDS = 5 * 60 + 5;

function refused(name, attempt) {
  try {
    attempt();
  } catch (error) {
    if (error instanceof WebhookVerificationError) return;
    throw error;
  }
  throw new Error(`${name} was not refused`);
}

function check({ headers, body, secret }) {
  const payload = Buffer.from(body, "base64");
  const webhook = new Webhook(secret);
  webhook.verify(payload, headers);

  const tampered = Buffer.from(payload);
  tampered[tampered.length - 1] ^= 1;
  refused("a tampered body", () => webhook.verify(tampered, headers));
  refused("another id", () => webhook.verify(payload, { ...headers, "webhook-id": `${headers["webhook-id"]}x` }));
  const stranger = new Webhook(Buffer.alloc(24, 7).toString("base64"));
  refused("another secret", () => stranger.verify(payload, headers));

  const late = new Date(Date.now() - LATE_SECONDS * 1000);
  refused("a late delivery", () =>
    webhook.verify(payload, {
      ...headers,
      "webhook-timestamp": String(Math.floor(late.getTime() / 1000)),
      "webhook-signature": webhook.sign(headers["webhook-id"], late, payload),
    }),
  );
}

function checkPublic({ headers, body, jwk }) {
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.concat([
    Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`),
    Buffer.from(body, "base64"),
  ]);
  const signatures = headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
  if (signatures.length === 0) throw new Error("no asymmetric signature");
  for (const signature of signatures) {
    const bytes = Buffer.from(signature.slice(4), "base64");
    if (!verify(null, signed, key, bytes)) throw new Error("the public key does not verify it");
    const tampered = Buffer.concat([signed, Buffer.from(" ")]);
    if (verify(null, tampered, key, bytes)) throw new Error("a tampered body was not refused by the public key");
  }
}

let passed = 0;
let failed = 0;
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const delivery = JSON.parse(line);
  try {
    check(delivery);
    if (delivery.jwk) checkPublic(delivery);
    passed += 1;
  } catch (error) {
    failed += 1;
    console.error(`${delivery.headers["webhook-id"]}: ${error.message}`);
  }
}
console.log(JSON.stringify({ verified: passed, failed }));
// No delivery at all proves nothing, so it is a failure too.
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
