// Package report renders the result of a suite: Text for people at a terminal, Markdown and SVG for pages, JSON and JUnit for machines.
// What it writes follows from the result alone, byte for byte: no times, no paths, no order of a map.
// It also draws the graph of a model.
package report
