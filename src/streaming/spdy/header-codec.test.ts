import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { constants, deflateSync } from "node:zlib";

import { StreamingError } from "../errors.ts";
import { DICTIONARY } from "./dictionary.ts";
import { HeaderCodec } from "./header-codec.ts";

describe("HeaderCodec", () => {
  it("starts from the dictionary of SPDY/3", async () => {
    assert.equal(DICTIONARY.length, 1423);
    using codec = new HeaderCodec();
    // The zlib header names its dictionary by checksum.
    assert.equal((await codec.encode(new Map())).readUInt32BE(2), 0xe3c6a7c2);
  });

  it("goes round block after block, each direction with its history", async () => {
    using client = new HeaderCodec();
    using server = new HeaderCodec();
    for (let index = 0; index < 200; index++) {
      const headers = new Map([
        ["streamtype", "data"],
        ["port", String(index)],
        ["noise", randomBytes(index * 20).toString("base64")],
      ]);
      assert.deepEqual(await server.decode(await client.encode(headers)), headers);
    }
  });

  it("refuses a block that inflates without end, and every one after it", { timeout: 5000 }, async () => {
    using codec = new HeaderCodec();
    const bomb = deflateSync(Buffer.alloc(50_000_000), { dictionary: DICTIONARY, finishFlush: constants.Z_SYNC_FLUSH });
    await assert.rejects(codec.decode(bomb), StreamingError);
    await assert.rejects(codec.decode(bomb), StreamingError);
  });

  it("refuses noise, also behind a good header", { timeout: 20_000 }, async () => {
    for (let round = 0; round < 200; round++) {
      using codec = new HeaderCodec();
      using other = new HeaderCodec();
      const good = await other.encode(new Map([["a", "b"]]));
      const noise = round % 2 === 0 ? randomBytes(100) : Buffer.concat([good.subarray(0, 2 + (round % good.length)), randomBytes(100)]);
      try {
        await codec.decode(noise);
      } catch (error) {
        assert.ok(error instanceof StreamingError, String(error));
      }
    }
  });
});
