package fast

import (
	"context"
	"runtime/pprof"
	"strconv"

	"github.com/llavaref/llavaref/fast/kernel"
)

// part is a part of the model, as profiles name it.
type part uint8

const (
	visionEnds     part = iota // "vision": embeddings and pre_layrnorm
	visionLayer                // "vision.3"
	projectorLayer             // "projector"
	textEnds                   // "text": embeddings, rotary table, norm
	textLayer                  // "text.17"
	lmHeadLayer                // "lm_head"
)

var partNames = [...]string{"vision", "vision.", "projector", "text", "text.", "lm_head"}

// labels puts pprof labels on the threads of a pool: "layer" and "op", the leaf of the node. A nil one does nothing.
type labels struct {
	pool  *kernel.Pool
	known map[label]context.Context
	// ops are those that were met, so that no label is made in the decode loop
}

type label struct {
	part  part
	layer int
	op    string
}

func newLabels(p *kernel.Pool) *labels { return &labels{p, map[label]context.Context{}} }

func (l *labels) set(to label) {
	ctx, ok := l.known[to]
	if !ok {
		name := partNames[to.part]
		if to.part == visionLayer || to.part == textLayer {
			name += strconv.Itoa(to.layer)
		}
		ctx = pprof.WithLabels(context.Background(), pprof.Labels("layer", name, "op", to.op))
		l.known[to] = ctx
	}
	l.pool.Label(ctx)
}

// clear takes the labels off again.
func (l *labels) clear() {
	if l != nil {
		l.pool.Label(context.Background())
	}
}

// label says what runs from here on.
func (r *run) label(p part, layer int, op string) {
	if r.labels != nil {
		r.labels.set(label{p, layer, op})
	}
}
