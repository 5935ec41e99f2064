// Command guard-probe is a guard that decides by itself: questions come as lines of JSON, answers go back likewise.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"time"

	apikeyd "example.com/apikeyd/clients/go"
)

func main() {
	guard, err := apikeyd.New(apikeyd.Options{Address: os.Args[1], KeyFile: os.Args[2], Local: true, Deadline: time.Second})
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var question struct{ Key, Scope string }
		if err := json.Unmarshal(lines.Bytes(), &question); err != nil {
			panic(err)
		}
		verdict, err := guard.Validate(context.Background(), apikeyd.Question{
			Key: apikeyd.Secret(question.Key), Scope: question.Scope, ClientIP: "10.1.2.3",
		})
		outcome := string(verdict.Decision)
		if err != nil {
			outcome = "UNAVAILABLE"
		}
		answer, _ := json.Marshal(map[string]any{"outcome": outcome, "local": verdict.Local})
		_, _ = os.Stdout.Write(append(answer, '\n'))
	}
	_ = guard.Close()
}
