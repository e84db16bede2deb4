package pattern

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// The sums are those of tools/gen-golden/preprocess_images.py, which prints them.
func TestPatternsAreThoseOfThePythonGenerator(t *testing.T) {
	for name, want := range map[string]string{
		"photo-131x65":    "63886cfd0ee2e08b9ca9d2fe4b6158d9abfe5921dfb27e1da28801dce3b70f01",
		"noise-7x130":     "1d9b5a39ddcc965e1aa49e35d5ba6db465cdeb3e5d1165aaedcbbdc2da2828c0",
		"binary-31x9":     "b173438cb2eef8a578600774c4de431ae3cc74a6fab01a90697d45b16afb9097",
		"gradient-131x65": "89e7babc4228867137b25485e09a9d7bf559448492e1d6a253c8de33178159fa",
		"gradient-1x1":    "709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c",
		"checker1-9x8":    "1f4b061ef3dd3aa2a2f485fc0ecdb4b452a434f9428d2dc701b672ed58293c91",
		"checker3-31x20":  "03fdc24b1816f7d5af9c118b35d0a91539a1a76a5422adb874b99d169fb00e76",
		"checker8-31x20":  "630a0683751073a396cf987000f54a295fa1019426c9cf08b8df15d134b46aed",
		"dots-31x20":      "746919cb8819e060bb4c008e35aba8985374d3fa3696c2db915887374dcdc1b7",
		"flat-3x2":        "71fe68ce983598d2bb16fcfe0f624ad6865d4f5fd25dfd25e582034642a32695",
	} {
		_, pix, err := Make(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(pix)); got != want {
			t.Errorf("%s: SHA-256 %s, want %s", name, got, want)
		}
	}
}

func TestNamesThatAreNone(t *testing.T) {
	for _, name := range []string{"", "photo", "photo-", "photo-5", "photo-5x", "photo-0x5", "photo--1x5", "photo-5x5x", "photo-05x5", "photo-5 x5", "film-5x5", "photo-99999x99999", "photo-99999999999999999999x1", "PHOTO-5x5"} {
		if _, _, err := Make(name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}
