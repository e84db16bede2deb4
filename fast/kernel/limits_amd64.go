//go:build !purego

package kernel

//go:noescape
func peakFMAAVX512(t *probe)

// peakDotAVX512 needs AVX512_BF16.
//
//go:noescape
func peakDotAVX512(t *probe)

//go:noescape
func peakFMAAVX2(t *probe)

//go:noescape
func readStreamsAVX2(t *probe)

var (
	avx512Limits     = limitOps{fma: peakFMAAVX512, fmaStep: 24 * 16 * 2, read: readStreamsAVX2}
	avx512BF16Limits = limitOps{fma: peakFMAAVX512, fmaStep: 24 * 16 * 2, dot: peakDotAVX512, dotStep: 24 * 32 * 2, read: readStreamsAVX2}
	avx2Limits       = limitOps{fma: peakFMAAVX2, fmaStep: 12 * 8 * 2, read: readStreamsAVX2}
)
