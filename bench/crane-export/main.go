// Writes an image's flattened file system to standard output as a tar, the way `crane export IMAGE -` does, by the same library call.
// usage: crane-export HOST:PORT/NAME:TAG
package main

import (
	"log"
	"os"

	"github.com/google/go-containerregistry/pkg/crane"
)

func main() {
	image, err := crane.Pull(os.Args[1], crane.Insecure)
	if err != nil {
		log.Fatal(err)
	}
	if err := crane.Export(image, os.Stdout); err != nil {
		log.Fatal(err)
	}
}
