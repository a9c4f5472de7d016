import assert from "node:assert/strict";
import { suite, test } from "node:test";

import { Names } from "./names.ts";

const patient = { signal: new AbortController().signal };

function gate(): {
  readonly attempt: () => Promise<string>;
  readonly finish: (id: string) => void;
  readonly fail: (error: Error) => void;
  readonly runs: () => number;
} {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let runs = 0;
  return {
    attempt: () => {
      runs += 1;
      return promise;
    },
    finish: resolve,
    fail: reject,
    runs: () => runs,
  };
}

suite("a name", () => {
  test("is given to one attempt that identical calls join", async () => {
    const names = new Names();
    const { attempt, finish, runs } = gate();
    const first = names.claim("n", "f", attempt, patient);
    const second = names.claim("n", "f", attempt, patient);
    finish("id");
    assert.deepEqual(await Promise.all([first, second]), ["id", "id"]);
    assert.equal(runs(), 1);
  });

  test("is refused to a different call while the first is under way and after it", async () => {
    const names = new Names();
    const { attempt, finish } = gate();
    const first = names.claim("n", "f", attempt, patient);
    await assert.rejects(names.claim("n", "other", attempt, patient), { message: /in use by an attempt under way/ });
    finish("id");
    await first;
    await assert.rejects(names.claim("n", "f", attempt, patient), { message: /in use by id/ });
  });

  test("keeps the result of an attempt whose caller has left, for the identical retry", async () => {
    const names = new Names();
    const { attempt, finish, runs } = gate();
    const caller = new AbortController();
    const left = names.claim("n", "f", attempt, { signal: caller.signal });
    caller.abort(new Error("deadline"));
    await assert.rejects(left, { message: "deadline" });
    finish("id");
    assert.equal(await names.claim("n", "f", attempt, patient), "id");
    assert.equal(runs(), 1);
    await assert.rejects(names.claim("n", "f", attempt, patient), { message: /in use/ });
  });

  test("is free again after a failed attempt and after release", async () => {
    const names = new Names();
    const failing = gate();
    const first = names.claim("n", "f", failing.attempt, patient);
    failing.fail(new Error("no network"));
    await assert.rejects(first, { message: "no network" });
    assert.equal(await names.claim("n", "g", async () => "id", patient), "id");
    names.release("n", "id");
    assert.equal(await names.claim("n", "g", async () => "next", patient), "next");
  });

  test("that an earlier daemon held is claimed once by the identical call", async () => {
    const names = new Names();
    names.hold("n", "f", { id: "id", claimable: true });
    await assert.rejects(
      names.claim("n", "other", async () => "x", patient),
      { message: /in use by id/ },
    );
    assert.equal(await names.claim("n", "f", async () => "x", patient), "id");
    await assert.rejects(
      names.claim("n", "f", async () => "x", patient),
      { message: /in use by id/ },
    );
  });

  test("of something that runs no more is in use until it is removed", async () => {
    const names = new Names();
    names.hold("n", "f", { id: "id", claimable: false });
    await assert.rejects(
      names.claim("n", "f", async () => "x", patient),
      { message: /in use by id/ },
    );
    names.release("n", "id");
    assert.equal(await names.claim("n", "f", async () => "next", patient), "next");
  });

  test("is not freed by removing what does not hold it", async () => {
    const names = new Names();
    const { attempt, finish, runs } = gate();
    const first = names.claim("n", "f", attempt, patient);
    names.release("n", "one that failed before");
    const second = names.claim("n", "f", attempt, patient);
    finish("id");
    assert.deepEqual([await first, await second, runs()], ["id", "id", 1]);
    names.release("n", "one that failed before");
    await assert.rejects(names.claim("n", "f", attempt, patient), { message: /in use by id/ });
  });
});
