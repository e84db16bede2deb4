package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/llavaref/llavaref/conformance"
)

// GitHub shows at most ten annotations of a level and step; the last one says how many there would be more.
const maxAnnotations = 9

// GitHub writes the result as workflow commands of GitHub Actions, which make annotations: an error for each thing that is wrong,
// once for all cases that have it, a warning where an engine follows another published rule, and the verdict. With a file, a path in the
// repository, the annotations point at it.
func GitHub(w io.Writer, r conformance.Run, file string) error {
	b := bufio.NewWriter(w)
	n := 0
	all := diagnoses(r)
	for _, d := range all {
		if n++; n > maxAnnotations {
			break
		}
		level := "error"
		if d.status == conformance.Convention {
			level = "warning"
		}
		var lines []string
		lines = append(lines, d.lines...)
		lines = append(lines, causes("", d.causes)...)
		lines = append(lines, "in "+spots(d.at))
		annotation(b, level, file, "llavaref: "+d.title, strings.Join(lines, "\n"))
	}
	text := Verdict(r)
	if over := len(all) - maxAnnotations; over > 0 {
		text += fmt.Sprintf(" %d more things are wrong.", over)
	}
	level := "error"
	switch {
	case r.Accepted():
		level = "notice"
	case r.Status() == conformance.Convention:
		level = "warning"
	}
	annotation(b, level, file, "llavaref", text)
	return b.Flush()
}

func annotation(w io.Writer, level, file, title, text string) {
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	message := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	where := ""
	if file != "" {
		where = "file=" + property.Replace(file) + ","
	}
	fmt.Fprintf(w, "::%s %stitle=%s::%s\n", level, where, property.Replace(title), message.Replace(text))
}

// spots names cases, a few of them if there are many.
func spots(at []spot) string {
	const most = 6
	var names []string
	for i, s := range at {
		if i == most {
			return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", len(at)-most)
		}
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}
