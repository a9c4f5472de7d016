import assert from "node:assert/strict";
import { test } from "node:test";
import { type Command, parseCommand } from "./command.ts";
import type { ConfigError } from "./errors.ts";

test("commands", () => {
  for (const [line, command] of [
    ["serve", { kind: "serve", flags: {} }],
    [
      "serve --config /c --root=/r --state /s --listen unix:///l",
      { kind: "serve", flags: { config: "/c", root: "/r", state: "/s", listen: "unix:///l" } },
    ],
    ["serve -c /c", { kind: "serve", flags: { config: "/c" } }],
    ["why abc", { kind: "why", pod: "abc", json: false, flags: {} }],
    ["why --json default/web --root /r", { kind: "why", pod: "default/web", json: true, flags: { root: "/r" } }],
    ["check", { kind: "check", full: false, json: false, flags: {} }],
    ["check --full --json -c /c", { kind: "check", full: true, json: true, flags: { config: "/c" } }],
    ["config show --root /r", { kind: "config-show", flags: { root: "/r" } }],
    ["config validate /c", { kind: "config-validate", path: "/c" }],
    ["config default", { kind: "config-default" }],
    ["version", { kind: "version" }],
    ["--version", { kind: "version" }],
    ["--help", { kind: "help" }],
    ["serve --help", { kind: "help" }],
  ] as const satisfies readonly (readonly [string, Command])[]) {
    const parsed = parseCommand(line.split(" "));
    assert.deepEqual("flags" in parsed ? { ...parsed, flags: { ...parsed.flags } } : parsed, command, line);
  }
});

test("anything else is an error that says what", () => {
  for (const [line, message] of [
    ["sevre", /unknown command 'sevre' \(did you mean 'serve'\?\)/],
    ["serve --lisen x", /Unknown option '--lisen' \(did you mean '--listen'\?\)/],
    ["serve more", /Unexpected argument 'more'/],
    ["serve --root", /'--root <value>' argument missing/],
    ["version more", /version: unexpected 'more'/],
    ["why", /name one pod/],
    ["why a b", /why: unexpected 'b'/],
    ["check more", /Unexpected argument 'more'/],
    ["check --ful", /did you mean '--full'/],
    ["config", /say default, show or validate/],
    ["config validate", /name one file/],
    ["config validate a b", /unexpected 'b'/],
    ["config shwo", /did you mean 'show'/],
  ] as const) {
    assert.throws(
      () => parseCommand(line.split(" ")),
      (error: ConfigError) => error.fact.code === "ERR_USAGE" && message.test(error.message),
      line,
    );
  }
  assert.throws(() => parseCommand([]), /no command given/);
});
