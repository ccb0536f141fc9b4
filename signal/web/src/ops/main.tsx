import { render } from "preact";
import { startTheme } from "../app/theme.js";
import { startToken } from "./api.js";
import { OpsPage } from "./page.js";
import "./ops.css";

startTheme();
render(<OpsPage start={startToken()} />, document.getElementById("ops")!);
