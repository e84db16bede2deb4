// Package blackbox judges an engine of which nothing is known but what comes out: logits or the most probable tokens, and how many tokens the
// prompt had. Where that is wrong, every known bug, alone and in likely pairs, is run through the reference on the same prompt, and the
// one that gives the engine's output is named. docs/black-box.md describes the files.
package blackbox
