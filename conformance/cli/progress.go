package cli

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// bar shows progress on a terminal, and nothing anywhere else. Its zero value shows nothing.
type bar struct {
	p *mpb.Progress
	b *mpb.Bar
}

// newBytesBar makes a bar that counts bytes.
func newBytesBar(w io.Writer, label string) *bar {
	return newBar(w, label, decor.CountersKibiByte("% .1f of % .1f"))
}

// newStepsBar makes a bar that counts steps.
func newStepsBar(w io.Writer, label string) *bar {
	return newBar(w, label, decor.CountersNoUnit("%d of %d"))
}

func newBar(w io.Writer, label string, counters decor.Decorator) *bar {
	if !isTerminal(w) {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(w), mpb.WithWidth(72))
	return &bar{p, p.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(label+" ")), mpb.AppendDecorators(counters))}
}

// set says how much of how much is done.
func (b *bar) set(done, total int64) {
	if b.b != nil {
		b.b.SetTotal(total, false)
		b.b.SetCurrent(done)
	}
}

// close takes the bar off the terminal. It may be called again.
func (b *bar) close() {
	if b.p != nil {
		b.b.Abort(true)
		b.p.Wait()
		*b = bar{}
	}
}
