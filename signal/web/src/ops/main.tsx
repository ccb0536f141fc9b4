import { render } from "preact";
import "./ops.css";
render(<p>…</p>, document.getElementById("ops")!);
