package main

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"math/rand/v2"
)

// noise is an endless sequence of bytes that differs by its seed, and a hash of what was read of it.
type noise struct {
	random *rand.ChaCha8
	hash   hash.Hash
}

func newNoise(seed uint64) *noise {
	var key [32]byte
	for index := range 8 {
		key[index] = byte(seed >> (8 * index))
	}
	return &noise{random: rand.NewChaCha8(key), hash: sha256.New()}
}

func (n *noise) Read(buffer []byte) (int, error) {
	count, err := n.random.Read(buffer)
	n.hash.Write(buffer[:count])
	return count, err
}

func (n *noise) sum() string {
	return hex.EncodeToString(n.hash.Sum(nil))
}

// tally counts and hashes what is written to it, and calls onFirst once.
type tally struct {
	hash    hash.Hash
	bytes   int64
	onFirst func()
}

var _ io.Writer = (*tally)(nil)

func newTally(onFirst func()) *tally {
	return &tally{hash: sha256.New(), onFirst: onFirst}
}

func (t *tally) Write(buffer []byte) (int, error) {
	if t.bytes == 0 && len(buffer) > 0 {
		t.onFirst()
	}
	t.bytes += int64(len(buffer))
	return t.hash.Write(buffer)
}

func (t *tally) sum() string {
	return hex.EncodeToString(t.hash.Sum(nil))
}
