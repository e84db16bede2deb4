package shapes

import (
	"bytes"
	"errors"
)

// lfsPointer is how the few lines begin that stand in a clone for a file that Git LFS keeps elsewhere (git-lfs/docs/spec.md).
const lfsPointer = "version https://git-lfs.github.com/spec/"

// NotFetched is an error if data, a file or its beginning, is a Git LFS pointer in the place of the file: no reader of the file's own format
// would say what is the matter.
func NotFetched(data []byte) error {
	if bytes.HasPrefix(data, []byte(lfsPointer)) {
		return errors.New("is a Git LFS pointer and not the file: fetch it with git lfs pull in the folder's repository, or download it")
	}
	return nil
}
