// Connects with pgx: a case a line on standard input (see cases.ts), what came of it on standard output.

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if strings.HasSuffix(module.Path, "/pgx/v5") {
			fmt.Printf("version\tpgx %s\n", module.Version)
		}
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		said, err := probe(strings.Join(words[1:], " "))
		if err != nil {
			said = strings.Join(strings.Fields(err.Error()), " ")
		}
		fmt.Printf("%s\t%s\n", words[0], said)
	}
}

func probe(target string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	connection, err := pgx.Connect(ctx, target)
	if err != nil {
		return "", err
	}
	defer connection.Close(ctx)
	var text string
	if err := connection.QueryRow(ctx, "SELECT repeat('x', $1)", 300000).Scan(&text); err != nil {
		return "", err
	}
	if text != strings.Repeat("x", 300000) {
		return "", errors.New("another text came")
	}
	if _, isTLS := connection.PgConn().Conn().(*tls.Conn); isTLS {
		return "encrypted", nil
	}
	return "plain", nil
}
